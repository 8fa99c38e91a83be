// The tour: opens a node in each pane. Page and panes have one origin, so their Netron can be asked directly.
'use strict';

const sides = ['left', 'right'];
let names = {left: 'left', right: 'right'};

// On a telephone one of tour, left and right is shown; elsewhere all are, and this changes nothing that is seen.
function reveal(what) {
    document.body.dataset.shown = what;
    document.querySelectorAll('#switch button').forEach((one) => one.classList.toggle('here', one.dataset.show === what));
}

document.querySelectorAll('#switch button').forEach((one) => one.addEventListener('click', () => reveal(one.dataset.show)));

function netron(side) {
    const view = document.getElementById(side).contentWindow.__view__;
    return view && view.activeTarget && view._target ? view : null; // _target: the drawing, there when it is laid out
}

function show(side, name) {
    const view = netron(side);
    const node = view.activeTarget.nodes.find((one) => one.name === name);
    if (!node) {
        return `the ${names[side]} graph has no node ${name}`;
    }
    view._target.scrollTo(view._target.select([node], 'sidebar')); // a click on it opens its properties
    return '';
}

let latest = null;

function go(stop, button) {
    document.querySelectorAll('aside .here').forEach((one) => one.classList.remove('here'));
    button.classList.add('here');
    reveal(stop.right ? 'right' : 'left'); // the right one is what differs: smaller, or what comes after
    latest = stop;
    open(stop);
}

function open(stop) {
    const asked = sides.filter((side) => stop[side]);
    const loading = asked.filter((side) => !netron(side));
    const problems = loading.map((side) => `the ${names[side]} graph is still loading`);
    if (loading.length) {
        setTimeout(() => latest === stop && open(stop), 200); // unless another stop was chosen since
    } else {
        problems.push(...asked.map((side) => show(side, stop[side])).filter((text) => text));
    }
    document.getElementById('status').textContent = problems.join('; ');
}

function element(parent, tag, text, kind) {
    const made = document.createElement(tag);
    made.textContent = text || '';
    made.className = kind || '';
    parent.append(made);
    return made;
}

function addStop(stop) {
    const button = element(element(document.getElementById('tour'), 'li'), 'button');
    button.type = 'button';
    element(button, 'b', stop.title);
    element(button, 'small', stop.text);
    sides.filter((side) => stop[side]).forEach((side) => {
        element(element(button, 'small', `${names[side]}: `), 'code', stop[side]);
    });
    button.addEventListener('click', () => go(stop, button));
}

function addCount(row, compared) {
    const line = element(document.getElementById('counts'), 'tr');
    const button = element(element(line, 'td'), 'button', row.operator);
    button.type = 'button';
    button.addEventListener('click', () => go(row.first, button));
    element(line, 'td', String(row.left));
    element(line, 'td', String(row.right));
    if (!compared) {
        return;
    }
    const change = row.right - row.left;
    element(line, 'td', change ? (change > 0 ? `+${change}` : String(change)) : '', change > 0 ? 'more' : 'fewer');
}

fetch('tour.json').then((answer) => answer.json()).then((data) => {
    names = data.names;
    document.getElementById('change').hidden = !data.compared;
    data.tour.forEach(addStop);
    data.counts.forEach((row) => addCount(row, data.compared));
});
