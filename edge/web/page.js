// Small things that every part of the page uses: finding an element, saying a number, saying something.

export const $ = (id) => document.getElementById(id);
export const seconds = (value) => `${value.toFixed(value < 10 ? 2 : 1)} s`;
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** The line under the buttons. */
export function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

/** One of the named facts at the foot of the page; a name that is there already gets the new value. */
export function show(name, value) {
  let entry = [...$("facts").children].find((each) => each.dataset.name === name);
  if (!entry) {
    entry = $("facts").appendChild(document.createElement("div"));
    entry.dataset.name = name;
    entry.append(document.createElement("dt"), document.createElement("dd"));
    entry.firstChild.textContent = name;
  }
  entry.lastChild.textContent = value;
}
