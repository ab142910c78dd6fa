/** Layout of the cards of the network: layers from top to bottom, branches side by side. */

export const CARD = { width: 232, height: 58 };
const HEADER_HEIGHT = 30; // of an open group
const BOX_PADDING = 10;
const GAP = { x: 16, y: 24 };
const LANE_WIDTH = 14; // space for an edge that passes cards
const SWEEPS = 6;

/**
 * An item of the layout: a card, the box of an open group, a port where edges enter or leave a box,
 * or a lane where an edge passes a rank. A box is laid out independently; in its parent it is one
 * large card whose edges enter and leave at the ports.
 */
class Item {
  constructor(kind, width, height, properties = {}) {
    // Offsets are distances to the right of the centre, where edges enter and leave.
    const position = { x: 0, y: 0, rank: 0, entryOffset: 0, exitOffset: 0 };
    Object.assign(this, { kind, width, height, ...position }, properties);
    this.isSolid = kind === "card" || kind === "box";
  }
}

class Box extends Item {
  constructor(group) {
    super("box", 0, 0, { group, children: new Map(), edges: new Map(), entry: null, exit: null });
  }

  /** Return the child with a key, which is created at the first call. */
  getChild(key, create) {
    if (!this.children.has(key)) this.children.set(key, create());
    return this.children.get(key);
  }

  connect(from, to) {
    if (!this.edges.has(from)) this.edges.set(from, new Set());
    this.edges.get(from).add(to);
  }

  getPort(name) {
    this[name] ??= new Item("port", 0, 0);
    return this[name];
  }
}

/** Return the positions of the cards, boxes and edges of a model, given the set of open groups. */
export function computeLayout(model, openGroups) {
  const root = new Box(null);
  const itemPaths = model.nodes.map((_, index) => createItems(model, openGroups, root, index));
  for (const [from, to] of model.edges) connectItems(itemPaths[from], itemPaths[to]);
  arrange(root);
  const layout = { cards: [], boxes: [], edges: [], width: root.width, height: root.height };
  collect(root, 0, 0, layout);
  return layout;
}

/** Return the items of a node, outermost first: boxes, then its card or that of a closed group. */
function createItems(model, openGroups, root, index) {
  const items = [root];
  for (const group of model.getGroups(index)) {
    const box = items.at(-1);
    if (!openGroups.has(group)) {
      const last = model.lastNodes[group];
      items.push(box.getChild(`group ${group}`, () => createCard(last, group)));
      return items;
    }
    items.push(box.getChild(`group ${group}`, () => new Box(group)));
  }
  items.push(items.at(-1).getChild(`node ${index}`, () => createCard(index, null)));
  return items;
}

const createCard = (node, group) => new Item("card", CARD.width, CARD.height, { node, group });

/** Connect two cards by edges that leave the boxes of the first and enter those of the second. */
function connectItems(from, to) {
  let shared = 0;
  while (shared < from.length && from[shared] === to[shared]) shared += 1;
  if (shared === from.length || shared === to.length) return; // both are in one closed group
  from[shared - 1].connect(from[shared], to[shared]);
  for (let depth = shared; depth < from.length - 1; depth += 1) {
    from[depth].connect(from[depth + 1], from[depth].getPort("exit"));
  }
  for (let depth = shared; depth < to.length - 1; depth += 1) {
    to[depth].connect(to[depth].getPort("entry"), to[depth + 1]);
  }
}

/** Compute the positions of the children of a box, and the size of the box. */
function arrange(box) {
  for (const child of box.children.values()) if (child.kind === "box") arrange(child);
  const items = [...box.children.values()];
  if (box.entry) items.unshift(box.entry);
  if (box.exit) items.push(box.exit);
  assignRanks(box, items);
  const { ranks, links } = addLanes(box, items);
  const { above, below } = findNeighbours(links);
  orderRanks(ranks, above, below);
  placeHorizontally(ranks, above, below);
  box.links = links;
  placeVertically(box, ranks);
}

/** Set the rank of each item: the length of the longest path to the item. */
function assignRanks(box, items) {
  const predecessors = new Map(items.map((item) => [item, []]));
  for (const [from, tos] of box.edges) for (const to of tos) predecessors.get(to).push(from);
  const ranks = new Map();
  const findRank = (item) => {
    if (ranks.has(item)) return ranks.get(item);
    ranks.set(item, 0); // ends the recursion for a cycle
    const minRank = box.entry && item !== box.entry ? 1 : 0;
    ranks.set(item, Math.max(minRank, ...predecessors.get(item).map((from) => findRank(from) + 1)));
    return ranks.get(item);
  };
  for (const item of items) item.rank = findRank(item);
  for (const item of items) { // an item without predecessors is placed right above its successors
    const successors = [...(box.edges.get(item) ?? [])];
    if (item.kind !== "port" && !predecessors.get(item).length && successors.length) {
      item.rank = Math.min(...successors.map((to) => to.rank)) - 1;
    }
  }
  if (box.exit) {
    box.exit.rank = Math.max(...items.map(({ rank, kind }) => (kind === "port" ? rank : rank + 1)));
  }
}

/** Add lanes in the ranks that edges pass; the edges of an item share their lanes. */
function addLanes(box, items) {
  const ranks = [];
  const links = [];
  const add = (item) => {
    (ranks[item.rank] ??= []).push(item);
    return item;
  };
  items.forEach(add);
  for (const [from, tos] of box.edges) {
    const lanes = new Map();
    for (const to of tos) {
      let last = from;
      for (let rank = from.rank + 1; rank < to.rank; rank += 1) {
        if (!lanes.has(rank)) {
          lanes.set(rank, add(new Item("lane", LANE_WIDTH, 0, { rank })));
          links.push([last, lanes.get(rank)]);
        }
        last = lanes.get(rank);
      }
      links.push([last, to]);
    }
  }
  return { ranks: ranks.map((rankItems) => rankItems ?? []), links };
}

function findNeighbours(links) {
  const above = new Map();
  const below = new Map();
  const append = (map, key, value) => map.set(key, [...(map.get(key) ?? []), value]);
  for (const [from, to] of links) {
    append(above, to, from);
    append(below, from, to);
  }
  return { above, below };
}

/** Order the items of each rank by the mean position of their neighbours, down and up in turn. */
function orderRanks(ranks, above, below) {
  const positions = new Map();
  const storePositions = (items) =>
    items.forEach((item, index) => positions.set(item, (index + 0.5) / items.length));
  ranks.forEach(storePositions);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const isDown = sweep % 2 === 0;
    for (const items of isDown ? ranks : [...ranks].reverse()) {
      const means = new Map(items.map((item) => {
        const neighbours = (isDown ? above : below).get(item) ?? [];
        const sum = neighbours.reduce((total, other) => total + positions.get(other), 0);
        return [item, neighbours.length ? sum / neighbours.length : positions.get(item)];
      }));
      items.sort((a, b) => means.get(a) - means.get(b));
      storePositions(items);
    }
  }
}

/** Set the x of all items as close to their neighbours as possible without overlaps. */
function placeHorizontally(ranks, above, below) {
  for (const items of ranks) spreadItems(items, items.map(() => 0));
  for (let sweep = 0; sweep < 2 * SWEEPS; sweep += 1) {
    const isDown = sweep % 2 === 0;
    for (const items of isDown ? ranks : [...ranks].reverse()) {
      spreadItems(items, items.map((item) => {
        const upper = (above.get(item) ?? [])
          .map((other) => other.x + other.exitOffset - item.entryOffset);
        const lower = (below.get(item) ?? [])
          .map((other) => other.x + other.entryOffset - item.exitOffset);
        const targets = sweep < SWEEPS ? (isDown ? upper : lower) : [...upper, ...lower];
        return targets.length ? targets.reduce((sum, x) => sum + x) / targets.length : item.x;
      }));
    }
  }
}

/** Set the x of ordered items as close to `targets` as the gaps allow, by isotonic regression. */
function spreadItems(items, targets) {
  const offsets = [];
  items.forEach((item, index) => {
    const last = items[index - 1];
    const gap = last && (last.isSolid || item.isSolid) ? GAP.x : 0;
    offsets.push(last ? offsets.at(-1) + (last.width + item.width) / 2 + gap : 0);
  });
  const blocks = [];
  items.forEach((item, index) => {
    let block = { sum: targets[index] - offsets[index], count: 1 };
    while (blocks.length && blocks.at(-1).sum / blocks.at(-1).count > block.sum / block.count) {
      const last = blocks.pop();
      block = { sum: last.sum + block.sum, count: last.count + block.count };
    }
    blocks.push(block);
  });
  let index = 0;
  for (const { sum, count } of blocks) {
    for (const end = index + count; index < end; index += 1) {
      items[index].x = sum / count + offsets[index];
    }
  }
}

/** Set the y of all items, and the size, ports and edges of the box. */
function placeVertically(box, ranks) {
  const items = ranks.flat();
  const left = Math.min(...items.map(({ x, width }) => x - width / 2));
  const right = Math.max(...items.map(({ x, width }) => x + width / 2));
  const padding = box.group === null ? 0 : BOX_PADDING;
  const minWidth = box.group === null ? 0 : CARD.width;
  box.width = Math.max(right - left, minWidth) + 2 * padding;
  const shift = box.width / 2 - (left + right) / 2;
  let y = box.group === null ? 0 : HEADER_HEIGHT;
  if (padding && !box.entry) y += BOX_PADDING;
  ranks.forEach((row, rank) => {
    const height = Math.max(0, ...row.map((item) => item.height));
    for (const item of row) {
      item.x += shift;
      item.top = y;
      item.bottom = y + height;
      item.y = y + (height - item.height) / 2;
    }
    y += height + (rank < ranks.length - 1 ? GAP.y : 0);
  });
  box.height = y + (padding && !box.exit ? BOX_PADDING : 0);
  if (box.entry) box.entryOffset = box.entry.x - box.width / 2;
  if (box.exit) box.exitOffset = box.exit.x - box.width / 2;
  box.lines = box.links.map(([from, to]) => createLine(from, to));
}

/** Return the line between two linked items: straight within a rank, curved between ranks. */
function createLine(from, to) {
  const start = {
    x: from.x + from.exitOffset,
    y: from.kind === "lane" ? from.bottom : from.y + from.height,
  };
  const end = { x: to.x + to.entryOffset, y: to.kind === "lane" ? to.top : to.y };
  const curve = { start: from.bottom, end: to.top };
  return { from, to, start, end, curve };
}

/** Add the cards, boxes and edges in a box to a layout, in the coordinates of the layout. */
function collect(box, left, top, layout) {
  for (const { from, to, start, end, curve } of box.lines) {
    layout.edges.push({ ends: [from, to], path: formatPath(start, end, curve, left, top) });
  }
  const lanes = new Set(box.links.flat().filter((item) => item.kind === "lane"));
  for (const { x, top: laneTop, bottom } of lanes) {
    if (bottom > laneTop) {
      layout.edges.push({ ends: [], path: `M${left + x} ${top + laneTop}V${top + bottom}` });
    }
  }
  for (const item of box.children.values()) {
    const placement = { item, x: left + item.x - item.width / 2, y: top + item.y };
    if (item.kind === "box") {
      layout.boxes.push(placement);
      collect(item, placement.x, placement.y, layout);
    } else {
      layout.cards.push(placement);
    }
  }
}

/** Return the SVG path of a line, which is curved between the ranks. */
function formatPath(start, end, curve, left, top) {
  const [x0, y0, x1, y1] = [left + start.x, top + start.y, left + end.x, top + end.y];
  const [curveTop, curveBottom] = [Math.max(y0, top + curve.start), Math.min(y1, top + curve.end)];
  const middle = (curveTop + curveBottom) / 2;
  const format = (...values) => values.map((value) => +value.toFixed(1)).join(" ");
  const bezier = format(x0, middle, x1, middle, x1, curveBottom);
  return `M${format(x0, y0)}V${format(curveTop)}C${bezier}V${format(y1)}`;
}
