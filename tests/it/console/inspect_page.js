// Returns the visible state of the run page at this moment.
const root = document.querySelector('#board')?.shadowRoot;
const parent_box = (node) => node.assignedSlot ?? node.parentElement ?? node.getRootNode().host;

// The rectangle of a text that no box around it clips, or null if the text is not visible.
const visible_part = (text) => {
  const range = document.createRange();
  range.selectNodeContents(text);
  let { left, right, top, bottom } = range.getBoundingClientRect();
  for (let box = parent_box(text); box; box = parent_box(box)) {
    const { overflowX, overflowY } = getComputedStyle(box);
    if (overflowX === 'visible' && overflowY === 'visible') continue;
    const clip = box.getBoundingClientRect();
    [left, right] = [Math.max(left, clip.left), Math.min(right, clip.right)];
    [top, bottom] = [Math.max(top, clip.top), Math.min(bottom, clip.bottom)];
  }
  return right - left > 1 && bottom - top > 1 ? { left, right, top, bottom } : null;
};

// All text nodes below a node in the order of display; a slot stands for its assigned nodes.
const texts = (node) => {
  if (node.nodeType === Node.TEXT_NODE) return node.data.trim() ? [node] : [];
  const assigned = node.localName === 'slot' ? node.assignedNodes() : [];
  return [...(assigned.length ? assigned : node.childNodes)].flatMap(texts);
};
const visible_texts = (node) =>
  (node ? texts(node).filter(visible_part).map((text) => text.data.trim()) : []);

// The transcript of a column, and its commands with the two characters before each of them.
const transcript = (slot) => {
  const pieces = slot.assignedNodes();
  const commands = [];
  let text = '';
  const read = (node) => {
    if (node.localName === 'b') {
      const weight = Number(getComputedStyle(node).fontWeight);
      commands.push({ line: node.textContent, after: text.slice(-2), bold: weight >= 600 });
    }
    if (node.nodeType === Node.TEXT_NODE) text += node.data;
    node.childNodes.forEach(read);
  };
  pieces.forEach(read);
  return { text, commands };
};

// Whether the inner rectangle is inside the outer one.
const is_inside = (outer, inner) => inner.left >= outer.left && inner.right <= outer.right
  && inner.top >= outer.top && inner.bottom <= outer.bottom;

// Whether the last line of a text is painted inside this box, and no other element covers it.
const end_is_painted = (box, text) => {
  const range = document.createRange();
  range.selectNodeContents(text);
  // A line end has a rectangle without width.
  const line = [...range.getClientRects()].filter((rectangle) => rectangle.width > 0).at(-1);
  const [x, y] = [(line.left + line.right) / 2, (line.top + line.bottom) / 2];
  return is_inside(box, line) && text.parentElement.contains(document.elementFromPoint(x, y));
};

const column = (section) => {
  const slot = section.querySelector('[role=log] slot');
  const box = section.getBoundingClientRect();
  const pieces = texts(slot);
  const actions = section.querySelector('.actions slot').assignedElements()[0];
  const link = actions?.querySelector('a');
  const href = link?.href ?? '';
  return {
    ...transcript(slot),
    end_is_visible: pieces.length > 0 && end_is_painted(box, pieces.at(-1)),
    text_is_inside: pieces.map(visible_part).every((part) => !part || is_inside(box, part)),
    status: visible_texts(section.querySelector('[role=status]')),
    clock: visible_texts(section.querySelector('.progress')),
    next_step: visible_texts(section.querySelector('.next')),
    saved: decodeURIComponent(href.slice(href.indexOf(',') + 1)),
    saved_as: link?.download ?? null,
  };
};

const sections = [...(root?.querySelectorAll('section') ?? [])];
const board = [...document.querySelectorAll('#board *')];
return {
  sum: document.querySelector('#sum')?.textContent ?? null,
  columns: Object.fromEntries(sections.map((it) => [it.id, column(it)])),
  elements: [...new Set(board.map((it) => it.localName))].sort(),
  scripts: document.scripts.length,
  title: document.title,
};
