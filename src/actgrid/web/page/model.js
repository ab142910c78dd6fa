/** The model that is looked at, and what of it a state names. */

import { colours } from "./levels.js";
import { defaults } from "./state.js";

const HEATMAP_KINDS = ["image", "volume", "sequence"];

export class Model {
  constructor(about) {
    Object.assign(this, about);
    this.index = new Map(this.nodes.map((node, index) => [node.path, index]));
    this.groupKeys = uniqueKeys(this.groups);
    this.groupIndex = new Map(this.groupKeys.map((key, index) => [key, index]));
    const found = (wanted) => this.nodes.findIndex((node) => node.drawn && wanted(node));
    this.luts = new Map();
    this.last = this.lastNodes();
    // At first the first layer that has learned something is shown, with its activation.
    const learned = found((node) => node.kernel);
    const first = Math.max(learned < 0 ? found(() => true) : learned, 0);
    const { group } = this.nodes[first];
    this.first = this.groups[group]?.kind === "unit" ? this.last[group] : first;
  }

  /** The node that a card of each group shows: the last that can be drawn. */
  lastNodes() {
    const last = this.groups.map(() => null);
    const better = (node, old) => node.drawn || old === null || !this.nodes[old].drawn;
    this.nodes.forEach((node, index) => {
      for (const group of this.groupsOf(index)) if (better(node, last[group])) last[group] = index;
    });
    return last;
  }

  /** Groups of a node, outermost first. */
  groupsOf(index) {
    const found = [];
    for (let group = this.nodes[index].group; group !== null; group = this.groups[group].parent) {
      found.unshift(group);
    }
    return found;
  }

  /** What is shown where an address does not tell. */
  get defaults() {
    const { methods } = this;
    const { normalize, scope, order, cmap } = this.controls.layer;
    const usable = methods.filter(({ layer }) => !layer || this.mapped.length);
    const usual = this.controls.heatmap.method.default;
    const method = usable.find(({ name }) => name === usual) ?? usable[0] ?? methods[0];
    return {
      layer: this.nodes[this.first].path,
      normalize: normalize.default,
      scope: scope.default,
      order: order.default,
      cmap: cmap.default,
      method: method?.name ?? null,
      alpha: this.controls.heatmap.alpha.default,
    };
  }

  /** Index of the layer a state shows. */
  layer(state) {
    return this.index.get(state.layer);
  }

  lut(name) {
    if (!this.luts.has(name)) this.luts.set(name, colours(this.colormaps[name]));
    return this.luts.get(name);
  }

  label(index) {
    return this.classes?.labels?.[index] ?? null;
  }

  /** Index of the one class that has a number or a name; null if there is none. */
  target(text) {
    const labels = this.classes?.labels ?? [];
    const name = text.trim().toLowerCase();
    const found = [...labels.keys()].filter((index) => {
      const label = labels[index].toLowerCase();
      return name === label || name === `${index} ${label}`; // as the list of classes has it
    });
    const given = /^\d+$/.test(name) ? [Number(name)] : found;
    const count = this.classes?.count ?? Infinity;
    return given.length === 1 && given[0] < count ? given[0] : null;
  }

  method(state) {
    return this.methods.find(({ name }) => name === state.method);
  }

  /** Layers whose maps a method can weigh. */
  get mapped() {
    return this.nodes.filter((node) => node.drawn && HEATMAP_KINDS.includes(node.kind));
  }

  opened(state) {
    const all = state.open.includes("*");
    const open = (key) => all || state.open.includes(key);
    return new Set([...this.groups.keys()].filter((group) => open(this.groupKeys[group])));
  }

  /** The names of opened groups as a state holds them. */
  openNames(groups) {
    if (groups.size && groups.size === this.groups.length) return ["*"];
    return [...groups].sort((a, b) => a - b).map((group) => this.groupKeys[group]);
  }

  /** Return a state in which all names are known, and tell what had to be left out. */
  checked(state, tell) {
    const known = { ...state };
    const first = defaults();
    const settle = (name, fine, what = name) => {
      if (known[name] === first[name] || fine(known[name])) return;
      tell(`${what} ${known[name]}`);
      known[name] = first[name];
    };
    settle("layer", (path) => this.nodes[this.index.get(path)]?.drawn);
    const node = this.nodes[this.layer(known)];
    settle("channel", (channel) => node.channels === null || channel < node.channels);
    settle("normalize", (name) => this.normalizes(name), "normalisation");
    settle("scope", (name) => this.controls.layer.scope.words.includes(name));
    settle("order", (name) => this.controls.layer.order.words.includes(name));
    settle("cmap", (name) => name in this.colormaps, "colormap");
    settle("colours", (name) => name in this.colormaps, "colormap");
    settle("columns", (count) => count > 0, "number of columns");
    settle("method", (name) => this.methods.some((method) => method.name === name));
    settle("target", (text) => this.targets && this.target(text) !== null, "class");
    settle("over", (path) => this.live && this.mapped.some((one) => one.path === path), "layer");
    settle("tab", () => this.methods.length > 0);
    known.open = known.open.filter((name) => {
      const there = name === "*" || this.groupIndex.has(name);
      if (!there) tell(`group ${name}`);
      return there;
    });
    return known;
  }

  /** Whether a normalisation can be had: one of the list, or live one with numbers that go up. */
  normalizes(name) {
    if (this.controls.layer.normalize.words.includes(name)) return true;
    const limited = parseLimits(name)?.name;
    return this.live && this.controls.layer.normalize.limited.includes(limited);
  }
}

/** Read a normalisation with limits, such as "percentile(1, 99)"; null if the text is none. */
export function parseLimits(text) {
  const found = /^(\w+)\(([^,()]+),([^,()]+)\)$/.exec(text);
  if (!found) return null;
  const [low, high] = [Number(found[2]), Number(found[3])];
  const fine = low < high && Number.isFinite(low) && Number.isFinite(high)
    && (found[1] !== "percentile" || (low >= 0 && high <= 100));
  return fine ? { name: found[1], low, high } : null;
}

/** Write a normalisation with limits, as `parseLimits` reads it. */
export const writeLimits = (name, low, high) => `${name}(${low}, ${high})`;

/** Names of groups as they stand in an address: made different where they are not. */
function uniqueKeys(groups) {
  const seen = new Map();
  return groups.map(({ name }) => {
    const times = (seen.get(name) ?? 0) + 1;
    seen.set(name, times);
    return times === 1 ? name : `${name}#${times}`;
  });
}
