/** Where the cards of the network stand: layer by layer downwards, branches side by side. */

export const CARD = { width: 232, height: 58 };
const HEAD = 30; // of an opened group
const PAD = 10;
const GAP = { x: 16, y: 24 };
const LANE = 14; // between edges that pass by cards
const SWEEPS = 6;

/**
 * A card, an opened group's box, a way in or out of a box, or an edge passing a rank. Boxes are
 * laid out by themselves; outside they are one large card whose edges come in and go out at ports.
 */
class Item {
  constructor(kind, width, height, more = {}) {
    // `into` and `out`: how far right of the middle edges come in and go out.
    Object.assign(this, { kind, width, height, into: 0, out: 0, x: 0, y: 0, rank: 0 }, more);
    this.solid = kind === "card" || kind === "box";
  }
}

class Box extends Item {
  constructor(group) {
    super("box", 0, 0, { group, children: new Map(), edges: new Map(), entry: null, exit: null });
  }

  /** The child for a key, made when it is first asked for. */
  child(key, create) {
    if (!this.children.has(key)) this.children.set(key, create());
    return this.children.get(key);
  }

  connect(from, to) {
    if (!this.edges.has(from)) this.edges.set(from, new Set());
    this.edges.get(from).add(to);
  }

  port(name) {
    this[name] ??= new Item("port", 0, 0);
    return this[name];
  }
}

/** Return the cards, boxes and edges of a model whose `opened` groups are open. */
export function layOut(model, opened) {
  const root = new Box(null);
  const ways = model.nodes.map((_, index) => wayTo(model, opened, root, index));
  for (const [from, to] of model.edges) connectWays(ways[from], ways[to]);
  arrange(root);
  const placed = { cards: [], boxes: [], edges: [], width: root.width, height: root.height };
  collect(root, 0, 0, placed);
  return placed;
}

/** The items a node is in, outermost first: boxes, then its card or that of a closed group. */
function wayTo(model, opened, root, index) {
  const way = [root];
  for (const group of model.groupsOf(index)) {
    const box = way.at(-1);
    if (!opened.has(group)) {
      const last = model.last[group];
      way.push(box.child(`group ${group}`, () => card(last, group)));
      return way;
    }
    way.push(box.child(`group ${group}`, () => new Box(group)));
  }
  way.push(way.at(-1).child(`node ${index}`, () => card(index, null)));
  return way;
}

const card = (node, group) => new Item("card", CARD.width, CARD.height, { node, group });

/** Connect two cards: out of the boxes of the one, and into those of the other. */
function connectWays(from, to) {
  let shared = 0;
  while (shared < from.length && from[shared] === to[shared]) shared += 1;
  if (shared === from.length || shared === to.length) return; // both in one closed group
  from[shared - 1].connect(from[shared], to[shared]);
  for (let at = shared; at < from.length - 1; at += 1) {
    from[at].connect(from[at + 1], from[at].port("exit"));
  }
  for (let at = shared; at < to.length - 1; at += 1) {
    to[at].connect(to[at].port("entry"), to[at + 1]);
  }
}

/** Give the children of a box their places in it, and the box its size. */
function arrange(box) {
  for (const child of box.children.values()) if (child.kind === "box") arrange(child);
  const items = [...box.children.values()];
  if (box.entry) items.unshift(box.entry);
  if (box.exit) items.push(box.exit);
  rankItems(box, items);
  const { ranks, links } = withLanes(box, items);
  const { above, below } = neighbours(links);
  orderRanks(ranks, above, below);
  placeAcross(ranks, above, below);
  box.links = links;
  placeDown(box, ranks);
}

/** Rank of an item: the longest path to it. */
function rankItems(box, items) {
  const before = new Map(items.map((item) => [item, []]));
  for (const [from, tos] of box.edges) for (const to of tos) before.get(to).push(from);
  const ranks = new Map();
  const rankOf = (item) => {
    if (ranks.has(item)) return ranks.get(item);
    ranks.set(item, 0); // an edge back up, if there were one, ends here
    const least = box.entry && item !== box.entry ? 1 : 0;
    ranks.set(item, Math.max(least, ...before.get(item).map((from) => rankOf(from) + 1)));
    return ranks.get(item);
  };
  for (const item of items) item.rank = rankOf(item);
  for (const item of items) { // what nothing leads to stands right above what it leads to
    const after = [...(box.edges.get(item) ?? [])];
    if (item.kind !== "port" && !before.get(item).length && after.length) {
      item.rank = Math.min(...after.map((to) => to.rank)) - 1;
    }
  }
  if (box.exit) {
    box.exit.rank = Math.max(...items.map(({ rank, kind }) => (kind === "port" ? rank : rank + 1)));
  }
}

/** Lead edges past the ranks between their ends; those of one item share their way. */
function withLanes(box, items) {
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
      let at = from;
      for (let rank = from.rank + 1; rank < to.rank; rank += 1) {
        if (!lanes.has(rank)) {
          lanes.set(rank, add(new Item("lane", LANE, 0, { rank })));
          links.push([at, lanes.get(rank)]);
        }
        at = lanes.get(rank);
      }
      links.push([at, to]);
    }
  }
  return { ranks: ranks.map((items) => items ?? []), links };
}

function neighbours(links) {
  const above = new Map();
  const below = new Map();
  const put = (map, key, value) => map.set(key, [...(map.get(key) ?? []), value]);
  for (const [from, to] of links) {
    put(above, to, from);
    put(below, from, to);
  }
  return { above, below };
}

/** Order each rank by where its neighbours are, down and up in turn. */
function orderRanks(ranks, above, below) {
  const places = new Map();
  const note = (items) =>
    items.forEach((item, place) => places.set(item, (place + 0.5) / items.length));
  ranks.forEach(note);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const items of down ? ranks : [...ranks].reverse()) {
      const middle = new Map(items.map((item) => {
        const near = (down ? above : below).get(item) ?? [];
        const sum = near.reduce((total, other) => total + places.get(other), 0);
        return [item, near.length ? sum / near.length : places.get(item)];
      }));
      items.sort((one, other) => middle.get(one) - middle.get(other));
      note(items);
    }
  }
}

/** Place the items of each rank as near to their neighbours as they fit. */
function placeAcross(ranks, above, below) {
  for (const items of ranks) spread(items, items.map(() => 0));
  for (let sweep = 0; sweep < 2 * SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const items of down ? ranks : [...ranks].reverse()) {
      spread(items, items.map((item) => {
        const ups = (above.get(item) ?? []).map((other) => other.x + other.out - item.into);
        const downs = (below.get(item) ?? []).map((other) => other.x + other.into - item.out);
        const wanted = sweep < SWEEPS ? (down ? ups : downs) : [...ups, ...downs];
        return wanted.length ? wanted.reduce((sum, x) => sum + x) / wanted.length : item.x;
      }));
    }
  }
}

/** Set the x of items in order, apart, nearest to what is wanted: an isotonic regression. */
function spread(items, wanted) {
  const offsets = [];
  items.forEach((item, place) => {
    const last = items[place - 1];
    const gap = last && (last.solid || item.solid) ? GAP.x : 0;
    offsets.push(last ? offsets.at(-1) + (last.width + item.width) / 2 + gap : 0);
  });
  const blocks = [];
  items.forEach((item, place) => {
    let block = { sum: wanted[place] - offsets[place], count: 1 };
    while (blocks.length && blocks.at(-1).sum / blocks.at(-1).count > block.sum / block.count) {
      const last = blocks.pop();
      block = { sum: last.sum + block.sum, count: last.count + block.count };
    }
    blocks.push(block);
  });
  let place = 0;
  for (const { sum, count } of blocks) {
    for (const end = place + count; place < end; place += 1) {
      items[place].x = sum / count + offsets[place];
    }
  }
}

/** Set the y of the ranks, and the size and the ports of the box around them. */
function placeDown(box, ranks) {
  const items = ranks.flat();
  const left = Math.min(...items.map(({ x, width }) => x - width / 2));
  const right = Math.max(...items.map(({ x, width }) => x + width / 2));
  const side = box.group === null ? 0 : PAD;
  const least = box.group === null ? 0 : CARD.width;
  box.width = Math.max(right - left, least) + 2 * side;
  const shift = box.width / 2 - (left + right) / 2;
  let y = box.group === null ? 0 : HEAD;
  if (side && !box.entry) y += PAD;
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
  box.height = y + (side && !box.exit ? PAD : 0);
  if (box.entry) box.into = box.entry.x - box.width / 2;
  if (box.exit) box.out = box.exit.x - box.width / 2;
  box.lines = box.links.map(([from, to]) => line(from, to));
}

/** An edge from one item to the next: straight past an item's rank, curved between ranks. */
function line(from, to) {
  const start = {
    x: from.x + from.out,
    y: from.kind === "lane" ? from.bottom : from.y + from.height,
  };
  const end = { x: to.x + to.into, y: to.kind === "lane" ? to.top : to.y };
  const lead = { start: from.bottom, end: to.top };
  return { from, to, start, end, lead };
}

/** Add what is in a box to the picture, in its coordinates. */
function collect(box, left, top, placed) {
  for (const { from, to, start, end, lead } of box.lines) {
    placed.edges.push({ ends: [from, to], path: pathOf(start, end, lead, left, top) });
  }
  const lanes = new Set(box.links.flat().filter((item) => item.kind === "lane"));
  for (const { x, top: begin, bottom } of lanes) {
    if (bottom > begin) {
      placed.edges.push({ ends: [], path: `M${left + x} ${top + begin}V${top + bottom}` });
    }
  }
  for (const item of box.children.values()) {
    const at = { item, x: left + item.x - item.width / 2, y: top + item.y };
    if (item.kind === "box") {
      placed.boxes.push(at);
      collect(item, at.x, at.y, placed);
    } else {
      placed.cards.push(at);
    }
  }
}

function pathOf(start, end, lead, left, top) {
  const [x0, y0, x1, y1] = [left + start.x, top + start.y, left + end.x, top + end.y];
  const [begin, stop] = [Math.max(y0, top + lead.start), Math.min(y1, top + lead.end)];
  const middle = (begin + stop) / 2;
  const at = (...values) => values.map((value) => +value.toFixed(1)).join(" ");
  return `M${at(x0, y0)}V${at(begin)}C${at(x0, middle, x1, middle, x1, stop)}V${at(y1)}`;
}
