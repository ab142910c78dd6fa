/** Layout of the cards of the network: layers from top to bottom, branches side by side. */

/** @import { Point } from "./levels.js" */
/** @import { Model } from "./model.js" */

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
export class Item {
  /**
   * @param {"card" | "box" | "port" | "lane"} kind
   * @param {number} width
   * @param {number} height
   * @param {{node?: number, group?: number | null, rank?: number}} [properties]
   */
  constructor(kind, width, height, { node = -1, group = null, rank = 0 } = {}) {
    this.kind = kind;
    this.width = width;
    this.height = height;
    this.node = node; // of a card
    this.group = group; // of a box, or of the card of a closed group
    this.rank = rank;
    this.x = 0;
    this.y = 0;
    // Edges of the rank of the item.
    this.top = 0;
    this.bottom = 0;
    // Distances to the right of the centre, where edges enter and leave.
    this.entryOffset = 0;
    this.exitOffset = 0;
    this.isSolid = kind === "card" || kind === "box";
  }
}

/** @typedef {[Item, Item]} Link */
/** @typedef {Map<Item, Item[]>} Neighbours */
/** @typedef {{start: number, end: number}} Curve Top and bottom of the curved part of a line. */

class Box extends Item {
  /** @param {number | null} group */
  constructor(group) {
    super("box", 0, 0, { group });
    /** @type {Map<string, Item>} */
    this.children = new Map();
    /** @type {Map<Item, Set<Item>>} */
    this.edges = new Map();
    /** @type {Item | null} */
    this.entry = null;
    /** @type {Item | null} */
    this.exit = null;
    /** @type {Link[]} */
    this.links = [];
    /** @type {ReturnType<typeof createLine>[]} */
    this.lines = [];
  }

  /**
   * Return the child with a key, which is created at the first call.
   * @template {Item} T
   * @param {string} key
   * @param {() => T} create
   */
  getChild(key, create) {
    const child = /** @type {T | undefined} */ (this.children.get(key)) ?? create();
    this.children.set(key, child);
    return child;
  }

  /**
   * @param {Item} from
   * @param {Item} to
   */
  connect(from, to) {
    const ends = this.edges.get(from) ?? new Set();
    this.edges.set(from, ends.add(to));
  }

  /** @param {"entry" | "exit"} name */
  getPort(name) {
    this[name] ??= new Item("port", 0, 0);
    return this[name];
  }
}

/** @typedef {{item: Item, x: number, y: number}} Placement */

/**
 * @typedef {object} Layout
 * @property {Placement[]} cards
 * @property {Placement[]} boxes
 * @property {{ends: Item[], path: string}[]} edges Cards that an edge connects, and its SVG path.
 * @property {number} width
 * @property {number} height
 */

/**
 * Return the positions of the cards, boxes and edges of a model, given the set of open groups.
 * @param {Model} model
 * @param {Set<number>} openGroups
 */
export function computeLayout(model, openGroups) {
  const root = new Box(null);
  const itemPaths = model.nodes.map((_, index) => createItems(model, openGroups, root, index));
  for (const [from, to] of model.edges) connectItems(itemPaths[from], itemPaths[to]);
  arrange(root);
  /** @type {Layout} */
  const layout = { cards: [], boxes: [], edges: [], width: root.width, height: root.height };
  collect(root, 0, 0, layout);
  return layout;
}

/**
 * Return the boxes that contain a node, outermost first, and its card or that of a closed group.
 * @param {Model} model
 * @param {Set<number>} openGroups
 * @param {Box} root
 * @param {number} index
 */
function createItems(model, openGroups, root, index) {
  const boxes = [root];
  let box = root;
  for (const group of model.getGroups(index)) {
    if (!openGroups.has(group)) {
      const last = model.lastNodes[group];
      return { boxes, card: box.getChild(`group ${group}`, () => createCard(last, group)) };
    }
    box = box.getChild(`group ${group}`, () => new Box(group));
    boxes.push(box);
  }
  return { boxes, card: box.getChild(`node ${index}`, () => createCard(index, null)) };
}

/** @type {(node: number, group: number | null) => Item} */
const createCard = (node, group) => new Item("card", CARD.width, CARD.height, { node, group });

/**
 * Connect two cards by edges that leave the boxes of the first and enter those of the second.
 * @param {ReturnType<typeof createItems>} from
 * @param {ReturnType<typeof createItems>} to
 */
function connectItems(from, to) {
  if (from.card === to.card) return; // both are in one closed group
  let shared = 0;
  while (shared < from.boxes.length && from.boxes[shared] === to.boxes[shared]) shared += 1;
  const leave = [...from.boxes, from.card];
  const enter = [...to.boxes, to.card];
  from.boxes[shared - 1].connect(leave[shared], enter[shared]);
  for (const [depth, box] of from.boxes.entries()) {
    if (depth >= shared) box.connect(leave[depth + 1], box.getPort("exit"));
  }
  for (const [depth, box] of to.boxes.entries()) {
    if (depth >= shared) box.connect(box.getPort("entry"), enter[depth + 1]);
  }
}

/**
 * Compute the positions of the children of a box, and the size of the box.
 * @param {Box} box
 */
function arrange(box) {
  for (const child of box.children.values()) if (child instanceof Box) arrange(child);
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

/**
 * Set the rank of each item: the length of the longest path to the item.
 * @param {Box} box
 * @param {Item[]} items
 */
function assignRanks(box, items) {
  /** @type {Neighbours} */
  const predecessors = new Map(items.map((item) => [item, []]));
  for (const [from, tos] of box.edges) for (const to of tos) predecessors.get(to)?.push(from);
  /** @type {Map<Item, number>} */
  const ranks = new Map();
  /** @type {(item: Item) => number} */
  const findRank = (item) => {
    const known = ranks.get(item);
    if (known !== undefined) return known;
    ranks.set(item, 0); // ends the recursion for a cycle
    const minRank = box.entry && item !== box.entry ? 1 : 0;
    const previous = predecessors.get(item) ?? [];
    const rank = Math.max(minRank, ...previous.map((from) => findRank(from) + 1));
    ranks.set(item, rank);
    return rank;
  };
  for (const item of items) item.rank = findRank(item);
  for (const item of items) { // an item without predecessors is placed right above its successors
    const successors = [...(box.edges.get(item) ?? [])];
    if (item.kind !== "port" && !predecessors.get(item)?.length && successors.length) {
      item.rank = Math.min(...successors.map((to) => to.rank)) - 1;
    }
  }
  if (box.exit) {
    box.exit.rank = Math.max(...items.map(({ rank, kind }) => (kind === "port" ? rank : rank + 1)));
  }
}

/**
 * Add lanes in the ranks that edges pass; the edges of an item share their lanes.
 * @param {Box} box
 * @param {Item[]} items
 */
function addLanes(box, items) {
  /** @type {Item[][]} */
  const ranks = [];
  /** @type {Link[]} */
  const links = [];
  /** @param {Item} item */
  const add = (item) => {
    (ranks[item.rank] ??= []).push(item);
    return item;
  };
  items.forEach(add);
  for (const [from, tos] of box.edges) {
    /** @type {Map<number, Item>} */
    const lanes = new Map();
    for (const to of tos) {
      let last = from;
      for (let rank = from.rank + 1; rank < to.rank; rank += 1) {
        let lane = lanes.get(rank);
        if (!lane) {
          lane = add(new Item("lane", LANE_WIDTH, 0, { rank }));
          lanes.set(rank, lane);
          links.push([last, lane]);
        }
        last = lane;
      }
      links.push([last, to]);
    }
  }
  return { ranks: ranks.map((rankItems) => rankItems ?? []), links };
}

/** @param {Link[]} links */
function findNeighbours(links) {
  /** @type {Neighbours} */
  const above = new Map();
  /** @type {Neighbours} */
  const below = new Map();
  /** @type {(map: Neighbours, key: Item, value: Item) => void} */
  const append = (map, key, value) => { map.set(key, [...(map.get(key) ?? []), value]); };
  for (const [from, to] of links) {
    append(above, to, from);
    append(below, from, to);
  }
  return { above, below };
}

/**
 * Order the items of each rank by the mean position of their neighbours, down and up in turn.
 * @param {Item[][]} ranks
 * @param {Neighbours} above
 * @param {Neighbours} below
 */
function orderRanks(ranks, above, below) {
  /** @type {Map<Item, number>} */
  const positions = new Map();
  /** @param {Item} item */
  const getPosition = (item) => positions.get(item) ?? 0;
  /** @param {Item[]} items */
  const storePositions = (items) =>
    items.forEach((item, index) => positions.set(item, (index + 0.5) / items.length));
  ranks.forEach(storePositions);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const isDown = sweep % 2 === 0;
    for (const items of isDown ? ranks : [...ranks].reverse()) {
      const means = new Map(items.map((item) => {
        const neighbours = (isDown ? above : below).get(item) ?? [];
        const sum = neighbours.reduce((total, other) => total + getPosition(other), 0);
        return [item, neighbours.length ? sum / neighbours.length : getPosition(item)];
      }));
      items.sort((a, b) => (means.get(a) ?? 0) - (means.get(b) ?? 0));
      storePositions(items);
    }
  }
}

/**
 * Set the x of all items as close to their neighbours as possible without overlaps.
 * @param {Item[][]} ranks
 * @param {Neighbours} above
 * @param {Neighbours} below
 */
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

/**
 * Set the x of ordered items as close to `targets` as the gaps allow, by isotonic regression.
 * @param {Item[]} items
 * @param {number[]} targets
 */
function spreadItems(items, targets) {
  /** @type {number[]} */
  const offsets = [];
  items.forEach((item, index) => {
    const last = items[index - 1];
    const gap = last && (last.isSolid || item.isSolid) ? GAP.x : 0;
    offsets.push(last ? offsets[index - 1] + (last.width + item.width) / 2 + gap : 0);
  });
  /** @type {{sum: number, count: number}[]} */
  const blocks = [];
  targets.forEach((target, index) => {
    let block = { sum: target - offsets[index], count: 1 };
    for (let last = blocks.at(-1); last && last.sum / last.count > block.sum / block.count;
      last = blocks.at(-1)) {
      blocks.pop();
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

/**
 * Set the y of all items, and the size, ports and edges of the box.
 * @param {Box} box
 * @param {Item[][]} ranks
 */
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

/**
 * Return the line between two linked items: straight within a rank, curved between ranks.
 * @param {Item} from
 * @param {Item} to
 */
function createLine(from, to) {
  const start = {
    x: from.x + from.exitOffset,
    y: from.kind === "lane" ? from.bottom : from.y + from.height,
  };
  const end = { x: to.x + to.entryOffset, y: to.kind === "lane" ? to.top : to.y };
  const curve = { start: from.bottom, end: to.top };
  return { from, to, start, end, curve };
}

/**
 * Add the cards, boxes and edges in a box to a layout, in the coordinates of the layout.
 * @param {Box} box
 * @param {number} left
 * @param {number} top
 * @param {Layout} layout
 */
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
    if (item instanceof Box) {
      layout.boxes.push(placement);
      collect(item, placement.x, placement.y, layout);
    } else {
      layout.cards.push(placement);
    }
  }
}

/**
 * Return the SVG path of a line, which is curved between the ranks.
 * @param {Point} start
 * @param {Point} end
 * @param {Curve} curve
 * @param {number} left
 * @param {number} top
 */
function formatPath(start, end, curve, left, top) {
  const [x0, y0, x1, y1] = [left + start.x, top + start.y, left + end.x, top + end.y];
  const [curveTop, curveBottom] = [Math.max(y0, top + curve.start), Math.min(y1, top + curve.end)];
  const middle = (curveTop + curveBottom) / 2;
  /** @param {...number} values */
  const format = (...values) => values.map((value) => +value.toFixed(1)).join(" ");
  const bezier = format(x0, middle, x1, middle, x1, curveBottom);
  return `M${format(x0, y0)}V${format(curveTop)}C${bezier}V${format(y1)}`;
}
