/** The network: cards with thumbnails, groups that open, edges. */

import * as data from "./data.js";
import {
  ARROWS, button, byId, counted, div, make, saveButton, shapeText, span, withModifier,
} from "./dom.js";
import { CARD, layOut } from "./layout.js";
import { painted } from "./levels.js";
import { graphPicture, saveCanvas } from "./save.js";
import { get, go } from "./state.js";

const MARGIN = 12;

export class Graph {
  constructor(model) {
    this.model = model;
    this.cards = new Map(); // by key, kept when the layout changes
    this.sprite = null;
    this.shown = { layout: null, layer: null, filter: null, thumbnails: null };
    this.task = new data.Task(() => { this.sprite = null; });
    this.build();
  }

  build() {
    const what = "Find layers by name or type";
    this.filter = make("input", {
      type: "search", placeholder: what, "aria-label": what, autocomplete: "off",
      spellcheck: "false", oninput: () => this.show(get()),
      onkeydown: (event) => this.filterKey(event),
    });
    const tools = div("tools", this.filter, saveButton("the network", () => this.save()));
    if (this.model.groups.length) {
      tools.append(div("tools",
        button("Open all", { onclick: () => go({ open: ["*"] }) }),
        button("Fold all", { onclick: () => go({ open: [] }) })));
    }
    this.lines = make("svg:svg", { "aria-hidden": "true" });
    this.field = make("div", {
      class: "field-of-cards", role: "group", "aria-label": "Layers",
      onkeydown: (event) => this.key(event), onfocusin: (event) => this.rove(event.target),
    }, this.lines);
    this.found = make("div", {
      class: "found", role: "group", "aria-label": "Layers found", hidden: true,
      onkeydown: (event) => this.foundKey(event),
    });
    this.scroller = div("scroller", this.field, this.found);
    byId("graph").append(tools, this.scroller);
    new ResizeObserver(() => this.centre()).observe(this.scroller);
  }

  show(state) {
    this.load(state);
    this.showLayout(state);
    this.showFound();
    this.showCurrent(state);
    this.showThumbnails(state);
  }

  /** Numbers and thumbnails of all layers, of the image that is looked at. */
  load(state) {
    if (!state.image) return;
    this.task.run(state.image, async (signal) => {
      const { image } = state;
      const [about, levels, picture] = await Promise.all([
        data.json(data.paths.layers(image), signal),
        data.levels(data.paths.sprite(image), signal),
        data.bitmap(data.paths.thumbnail(image), signal),
      ]);
      this.sprite = { image, about, levels, picture };
      this.showThumbnails(get());
    });
  }

  showLayout(state) {
    const opened = this.model.opened(state);
    const key = [...opened].join();
    if (key === this.shown.layout) return;
    const first = this.shown.layout === null;
    this.shown.layout = key;
    this.shown.thumbnails = null;
    const anchor = first ? null : this.anchor();
    this.layout = layOut(this.model, opened);
    const kept = new Set();
    for (const place of [...this.layout.cards, ...this.layout.boxes]) kept.add(this.place(place));
    for (const [name, card] of this.cards) {
      if (kept.has(name)) continue;
      card.element.remove();
      this.cards.delete(name);
    }
    this.inOrder();
    this.drawEdges();
    this.field.style.width = `${this.layout.width + 2 * MARGIN}px`;
    this.field.style.height = `${this.layout.height + 2 * MARGIN}px`;
    this.centre();
    if (anchor) this.hold(anchor);
    this.shown.layer = null;
  }

  /** Cards follow one another for those who read the page as they do from top to bottom. */
  inOrder() {
    const sorted = [...this.cards.values()].sort((a, b) => a.y - b.y || a.x - b.x);
    const focused = document.activeElement;
    this.field.append(...sorted.map(({ element }) => element));
    if (this.field.contains(focused)) focused.focus({ preventScroll: true });
  }

  place({ item, x, y }) {
    const { kind, group, node, width, height } = item;
    const name = group === null ? `node ${node}` : `group ${group}`;
    const old = this.cards.get(name);
    const card = old?.kind === kind ? old : this[kind === "box" ? "makeBox" : "makeCard"](item);
    if (old && old !== card) old.element.remove();
    Object.assign(card, { item, x, y, width, height });
    const transform = `translate(${x + MARGIN}px, ${y + MARGIN}px)`;
    Object.assign(card.element.style, { transform, width: `${width}px`, height: `${height}px` });
    this.cards.set(name, card);
    return name;
  }

  makeCard({ node: index, group }) {
    const folded = group === null ? null : this.model.groups[group];
    const thumbnail = make("canvas", { class: "thumbnail", width: 96, height: 96 });
    const dead = make("span", { class: "dead", hidden: true });
    const title = make("b", {});
    const what = make("span", {});
    const shape = span("soft numbers");
    const pick = button("", { class: "pick", onclick: () => this.pick(card.index) }, thumbnail,
      span("words", title, span("soft what", what, dead), shape));
    const element = make("div", { class: `card ${folded ? `folded ${folded.kind}` : ""}` }, pick);
    if (folded) element.append(this.toggle(group, true));
    const card = { kind: "card", element, thumbnail, dead, title, what, shape, pick, index, group };
    this.name(card);
    return card;
  }

  /** Write on a card which layer it is: the one that a click opens and whose numbers it shows. */
  name({ title, what, shape, pick, index, group }) {
    const node = this.model.nodes[index];
    const folded = group === null ? null : this.model.groups[group];
    title.textContent = node.name;
    what.textContent = !folded ? node.type
      : folded.kind === "model" ? `${folded.name}: ${folded.title}` : folded.title;
    shape.textContent = shapeText(node.shape);
    pick.dataset.path = node.path;
    pick.title = `${node.path}\n${what.textContent}`;
    pick.disabled = !node.drawn;
  }

  /** A card of a closed group is the layer of it that is looked at, else the group's last one. */
  turnCards(index) {
    for (const card of this.cards.values()) {
      if (card.kind !== "card" || card.group === null) continue;
      const inside = this.model.groupsOf(index).includes(card.group);
      const shown = inside ? index : this.model.last[card.group];
      if (shown === card.index) continue;
      card.index = shown;
      this.name(card);
      this.shown.thumbnails = null;
    }
  }

  makeBox({ group }) {
    const { name, kind, title } = this.model.groups[group];
    const pick = this.toggle(group, false);
    const head = make("div", { class: "head", title: `${name}\n${title}` },
      pick, make("b", {}, name), span("soft", kind));
    const element = div(`box ${kind}`, head);
    return { kind: "box", element, pick, group };
  }

  toggle(group, closed) {
    const { name } = this.model.groups[group];
    const title = closed ? "Open" : "Fold";
    return button("", {
      class: "toggle", title, "aria-label": `${title} ${name}`, "aria-expanded": String(!closed),
      onclick: () => this.turn(group),
    });
  }

  drawEdges() {
    const { width, height, edges } = this.layout;
    const lines = this.lines;
    lines.setAttribute("width", width + 2 * MARGIN);
    lines.setAttribute("height", height + 2 * MARGIN);
    lines.replaceChildren(make("svg:g", { transform: `translate(${MARGIN} ${MARGIN})` },
      ...edges.map(({ path }) => make("svg:path", { d: path }))));
  }

  /** A network narrower than its column stands in the middle. */
  centre() {
    if (!this.layout) return;
    const room = this.scroller.clientWidth - this.layout.width - 2 * MARGIN;
    this.field.style.marginLeft = `${Math.max(0, room / 2)}px`;
  }

  /** What must not move on the screen while groups open and fold. */
  anchor() {
    const { turned } = this;
    const card = turned === undefined ? this.currentCard() : this.cards.get(`group ${turned}`);
    if (!card) return null;
    const { group, index } = card;
    const { scrollLeft, scrollTop } = this.scroller;
    return { group, index, x: card.x + card.width / 2 - scrollLeft, y: card.y - scrollTop };
  }

  hold({ group, index, x, y }) {
    const card = (group !== null && this.cards.get(`group ${group}`))
      || (index !== undefined ? this.cardOf(index) : null);
    if (!card) return;
    this.scroller.scrollTop = card.y - y;
    this.scroller.scrollLeft = card.x + card.width / 2 - x;
    if (this.turned !== undefined) {
      card.pick.closest(".card, .box").querySelector(".toggle")?.focus({ preventScroll: true });
    }
    this.turned = undefined;
  }

  turn(group) {
    const opened = this.model.opened(get());
    if (!opened.delete(group)) opened.add(group);
    this.turned = group;
    go({ open: this.model.openNames(opened) });
  }

  pick(index) {
    const node = this.model.nodes[index];
    if (!node.drawn) return;
    const fresh = { channel: null, view: null, columns: null, pane: "view", tab: "layer" };
    go({ layer: node.path, ...fresh });
  }

  /** The card that stands for a node: its own, or that of the closed group it is in. */
  cardOf(index) {
    for (const group of this.model.groupsOf(index)) {
      const card = this.cards.get(`group ${group}`);
      if (card?.kind === "card") return card;
    }
    return this.cards.get(`node ${index}`);
  }

  currentCard() {
    return this.cardOf(this.model.layer(get()));
  }

  showCurrent(state) {
    const index = this.model.layer(state);
    if (index === this.shown.layer) return;
    const first = this.shown.layer === null;
    this.shown.layer = index;
    this.turnCards(index);
    const current = this.cardOf(index);
    for (const card of this.cards.values()) {
      card.element.classList.toggle("current", card === current);
      if (card.kind === "card") card.pick.ariaCurrent = card === current ? "true" : null;
    }
    for (const [position, line] of [...this.lines.firstChild.children].entries()) {
      line.classList.toggle("near", this.layout.edges[position].ends.includes(current?.item));
    }
    if (!current) return;
    this.rove(current.pick);
    if (!this.field.contains(document.activeElement)) this.reveal(current, first);
  }

  /** Scroll to a card only as far as is needed. */
  reveal(card, middle = false) {
    const { scroller } = this;
    const [x, y] = [card.x + MARGIN, card.y + MARGIN];
    const within = (from, size, start, room) => from >= start && from + size <= start + room;
    if (!within(y, card.height, scroller.scrollTop, scroller.clientHeight)) {
      scroller.scrollTop = y - (scroller.clientHeight - card.height) / 2;
    }
    if (middle || !within(x, card.width, scroller.scrollLeft, scroller.clientWidth)) {
      scroller.scrollLeft = x - (scroller.clientWidth - card.width) / 2;
    }
  }

  showThumbnails(state) {
    if (!this.sprite) return;
    const key = [this.sprite.image, state.cmap, this.shown.layout, this.shown.filter].join("|");
    if (key === this.shown.thumbnails) return;
    this.shown.thumbnails = key;
    for (const card of this.cards.values()) {
      if (card.kind === "card") this.drawThumbnail(card, state);
    }
    for (const card of this.foundCards ?? []) this.drawThumbnail(card, state);
  }

  drawThumbnail({ thumbnail, dead, index }, state) {
    const { about, levels, picture } = this.sprite;
    const { side, columns } = about;
    const context = thumbnail.getContext("2d");
    const numbers = about.layers[index];
    thumbnail.width = thumbnail.height = side;
    thumbnail.dataset.shown = this.sprite.image;
    if (numbers) {
      const [x, y] = [(index % columns) * side, Math.floor(index / columns) * side];
      const part = { x, y, width: side, height: side };
      context.drawImage(painted(levels, this.model.lut(state.cmap), part), 0, 0);
    } else if (this.model.inputs.includes(index)) {
      context.drawImage(picture, 0, 0, side, side);
    }
    dead.hidden = !numbers?.dead;
    dead.textContent = numbers?.dead ? `${numbers.dead} dead` : "";
  }

  /* Finding */

  showFound() {
    const wanted = this.filter.value.trim().toLowerCase();
    if (wanted === this.shown.filter) return;
    this.shown.filter = wanted;
    this.found.hidden = !wanted;
    this.field.hidden = Boolean(wanted);
    const text = ({ path, type }) => `${path} ${type}`.toLowerCase();
    const found = [...this.model.nodes.keys()].filter((index) => {
      const node = this.model.nodes[index];
      return wanted && node.drawn && text(node).includes(wanted);
    });
    this.foundCards = found.map((index) => this.makeCard({ node: index, group: null }));
    for (const { pick, index } of this.foundCards) {
      pick.addEventListener("click", () => this.leaveFilter(index));
    }
    const count = wanted ? `${counted(found.length, "layer")} found` : "";
    const told = make("p", { class: "soft", role: "status" }, count);
    this.found.replaceChildren(told, ...this.foundCards.map(({ element }) => element));
    if (!wanted) this.centre();
  }

  /** Leave the list of found layers for the network, where the groups around the layer open. */
  leaveFilter(index) {
    this.filter.value = "";
    const opened = this.model.opened(get());
    for (const group of this.model.groupsOf(index)) opened.add(group);
    go({ open: this.model.openNames(opened) }, { step: false });
    this.show(get());
    const card = this.cardOf(index);
    if (card) this.reveal(card, true);
  }

  filterKey(event) {
    if (event.key === "Escape" && this.filter.value) {
      this.filter.value = "";
      this.show(get());
    } else if (event.key === "Enter") {
      this.found.querySelector(".pick")?.click();
    } else if (event.key === "ArrowDown") {
      const { hidden } = this.found;
      const first = hidden ? this.currentCard()?.pick : this.found.querySelector(".pick");
      first?.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  foundKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const picks = [...this.found.querySelectorAll(".pick")];
    const next = picks.indexOf(document.activeElement) + step;
    (next < 0 ? this.filter : picks[next])?.focus();
    event.preventDefault();
  }

  /* Keys: one card at a time can be reached by Tab, the others from it by arrows. */

  rove(target) {
    const holder = target.closest(".card, .box");
    for (const { element, pick } of this.cards.values()) {
      const here = element === holder;
      pick.tabIndex = here ? 0 : -1;
      const toggle = element.querySelector(".toggle");
      if (toggle) toggle.tabIndex = here ? 0 : -1;
    }
  }

  key(event) {
    const holder = event.target.closest(".card, .box");
    const card = [...this.cards.values()].find(({ element }) => element === holder);
    if (!card || withModifier(event)) return;
    const direction = ARROWS[event.key];
    if (direction) {
      const next = this.next(card, direction);
      if (next) {
        next.pick.focus({ preventScroll: true });
        this.reveal(next);
      }
    } else if (event.key === "+" && card.kind === "card" && card.group !== null) {
      this.turn(card.group);
    } else if (event.key === "-") {
      const group = card.kind === "box" ? card.group : this.model.nodes[card.index].group;
      if (this.cards.get(`group ${group}`)?.kind === "box") this.turn(group);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** The nearest card in a direction. */
  next(card, [right, down]) {
    const at = ({ x, y, width, height, kind }) => [
      x + width / 2,
      kind === "box" ? y + 15 : y + height / 2,
    ];
    const [x, y] = at(card);
    let [best, found] = [Infinity, null];
    for (const other of this.cards.values()) {
      if (other === card || (other.kind === "card" && other.pick.disabled)) continue;
      const [dx, dy] = [at(other)[0] - x, at(other)[1] - y];
      const ahead = dx * right + dy * down;
      const aside = Math.abs(dx * down) + Math.abs(dy * right);
      const cost = ahead + 2 * aside;
      if (ahead > 4 && (down || aside < CARD.height) && cost < best) [best, found] = [cost, other];
    }
    return found;
  }

  save() {
    saveCanvas(graphPicture(this), `${this.model.name}-network.png`);
  }
}
