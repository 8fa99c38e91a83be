// The tour: opens a node in each pane. Page and panes have one origin, so their Netron can be asked directly.
'use strict';

const sides = ['left', 'right'];

function netron(side) {
    const view = document.getElementById(side).contentWindow.__view__;
    return view && view.activeTarget && view._target ? view : null; // _target: the drawing, there when it is laid out
}

function show(side, name) {
    const view = netron(side);
    const node = view.activeTarget.nodes.find((one) => one.name === name);
    if (!node) {
        return `the ${side} graph has no node ${name}`;
    }
    view._target.scrollTo(view._target.select([node], 'sidebar')); // a click on it opens its properties
    return '';
}

let latest = null;

function go(stop, button) {
    document.querySelectorAll('.here').forEach((one) => one.classList.remove('here'));
    button.classList.add('here');
    latest = stop;
    open(stop);
}

function open(stop) {
    const asked = sides.filter((side) => stop[side]);
    const loading = asked.filter((side) => !netron(side));
    const problems = loading.map((side) => `the ${side} graph is still loading`);
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
        element(element(button, 'small', `${side}: `), 'code', stop[side]);
    });
    button.addEventListener('click', () => go(stop, button));
}

function addCount(row) {
    const line = element(document.getElementById('counts'), 'tr');
    const button = element(element(line, 'td'), 'button', row.operator);
    button.type = 'button';
    button.addEventListener('click', () => go(row.first, button));
    element(line, 'td', String(row.left));
    element(line, 'td', String(row.right));
    const change = row.right - row.left;
    element(line, 'td', change ? (change > 0 ? `+${change}` : String(change)) : '', change > 0 ? 'more' : 'fewer');
}

fetch('tour.json').then((answer) => answer.json()).then((data) => {
    data.tour.forEach(addStop);
    data.counts.forEach(addCount);
});
