// Text found across the words of a list, and shown by the browser's own highlights: nothing in it is changed.

export function findIn(room, wanted) {
  return [...room.querySelectorAll(".words")].flatMap((line) => rangesIn(line, fold(wanted)));
}

export function highlight(ranges, current) {
  if (!window.Highlight) return;
  CSS.highlights.set("found", new Highlight(...ranges));
  CSS.highlights.set("found-now", new Highlight(...(current ? [current] : [])));
}

function rangesIn(line, wanted) {
  const nodes = [];
  const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) nodes.push(walker.currentNode);
  const text = fold(nodes.map((node) => node.data).join(""));
  const found = [];
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
    const range = document.createRange();
    range.setStart(...place(nodes, at));
    range.setEnd(...place(nodes, at + wanted.length));
    found.push(range);
  }
  return found;
}

// Small letters, but only where that changes no length: places must stay what they are.
export function fold(text) {
  return [...text].map((letter) => (letter.toLowerCase().length === letter.length ? letter.toLowerCase() : letter)).join("");
}

function place(nodes, at) {
  let left = at;
  for (const node of nodes) {
    if (left <= node.length) return [node, left];
    left -= node.length;
  }
  return [nodes.at(-1), nodes.at(-1).length];
}
