/** The description of the model, and the parts of it that a state refers to. */

import { decodeColormap } from "./levels.js";
import { defaults } from "./state.js";

const HEATMAP_KINDS = ["image", "volume", "sequence"];

export class Model {
  constructor(about) {
    Object.assign(this, about);
    this.index = new Map(this.nodes.map((node, index) => [node.path, index]));
    this.groupKeys = makeUniqueKeys(this.groups);
    this.groupIndex = new Map(this.groupKeys.map((key, index) => [key, index]));
    const findDrawn = (matches) => this.nodes.findIndex((node) => node.is_drawable && matches(node));
    this.luts = new Map();
    this.lastNodes = this.findLastNodes();
    // The initial layer is the first one with a kernel, together with its activation function.
    const withKernel = findDrawn((node) => node.kernel);
    const first = Math.max(withKernel < 0 ? findDrawn(() => true) : withKernel, 0);
    const { group } = this.nodes[first];
    const isUnit = this.groups[group]?.kind === "unit";
    this.initialLayer = isUnit ? this.lastNodes[group] : first;
  }

  /** Return the last drawable node of each group, which the card of the closed group shows. */
  findLastNodes() {
    const lastNodes = this.groups.map(() => null);
    const isBetter = (node, old) => node.is_drawable || old === null || !this.nodes[old].is_drawable;
    this.nodes.forEach((node, index) => {
      for (const group of this.getGroups(index)) {
        if (isBetter(node, lastNodes[group])) lastNodes[group] = index;
      }
    });
    return lastNodes;
  }

  /** Return the groups that contain a node, outermost first. */
  getGroups(index) {
    const groups = [];
    for (let group = this.nodes[index].group; group !== null; group = this.groups[group].parent) {
      groups.unshift(group);
    }
    return groups;
  }

  /** The default values of the state. */
  get defaults() {
    const { methods } = this;
    const { normalize, scope, order, cmap } = this.controls.layer;
    const usable = methods.filter(({ layer }) => !layer || this.heatmapLayers.length);
    const preferred = this.controls.heatmap.method.default;
    const method = usable.find(({ name }) => name === preferred) ?? usable[0] ?? methods[0];
    return {
      layer: this.nodes[this.initialLayer].path,
      normalize: normalize.default,
      scope: scope.default,
      order: order.default,
      cmap: cmap.default,
      method: method?.name ?? null,
      alpha: this.controls.heatmap.alpha.default,
    };
  }

  /** Return the node index of the layer in a state. */
  getLayerIndex(state) {
    return this.index.get(state.layer);
  }

  /** Return the 256 colours of a colormap as pixels. */
  getLut(name) {
    if (!this.luts.has(name)) this.luts.set(name, decodeColormap(this.colormaps[name]));
    return this.luts.get(name);
  }

  /** Return the label of a class; null without labels. */
  getLabel(index) {
    return this.classes?.labels?.[index] ?? null;
  }

  /** Return the index of the class with a number or a unique name; null if there is none. */
  findTarget(text) {
    const labels = this.classes?.labels ?? [];
    const name = text.trim().toLowerCase();
    const matches = [...labels.keys()].filter((index) => {
      const label = labels[index].toLowerCase();
      return name === label || name === `${index} ${label}`; // the format of the suggestions
    });
    const indices = /^\d+$/.test(name) ? [Number(name)] : matches;
    const count = this.classes?.count ?? Infinity;
    return indices.length === 1 && indices[0] < count ? indices[0] : null;
  }

  getMethod(state) {
    return this.methods.find(({ name }) => name === state.method);
  }

  /** Layers whose activation maps can be used by a method. */
  get heatmapLayers() {
    return this.nodes.filter((node) => node.is_drawable && HEATMAP_KINDS.includes(node.kind));
  }

  /** Return the set of groups that are open in a state. */
  getOpenGroups(state) {
    const areAllOpen = state.open.includes("*");
    const isOpen = (key) => areAllOpen || state.open.includes(key);
    return new Set([...this.groups.keys()].filter((group) => isOpen(this.groupKeys[group])));
  }

  /** Return the names of open groups for a state; ["*"] for all groups. */
  formatOpenGroups(groups) {
    if (groups.size && groups.size === this.groups.length) return ["*"];
    return [...groups].sort((a, b) => a - b).map((group) => this.groupKeys[group]);
  }

  /** Return a state with defaults in place of unknown values, which are reported. */
  validateState(state, reportMissing) {
    const validState = { ...state };
    const initial = defaults();
    const check = (name, isValid, noun = name) => {
      if (validState[name] === initial[name] || isValid(validState[name])) return;
      reportMissing(`${noun} ${validState[name]}`);
      validState[name] = initial[name];
    };
    check("layer", (path) => this.nodes[this.index.get(path)]?.is_drawable);
    const node = this.nodes[this.getLayerIndex(validState)];
    check("channel", (channel) => node.channels === null || channel < node.channels);
    check("normalize", (name) => this.acceptsNormalization(name), "normalization");
    check("scope", (name) => this.controls.layer.scope.choices.includes(name));
    check("order", (name) => this.controls.layer.order.choices.includes(name));
    check("cmap", (name) => name in this.colormaps, "colormap");
    check("colours", (name) => name in this.colormaps, "colormap");
    check("columns", (count) => count > 0, "number of columns");
    check("method", (name) => this.methods.some((method) => method.name === name));
    check("target", (text) => this.targets && this.findTarget(text) !== null, "class");
    const layers = this.heatmapLayers;
    check("over", (path) => this.is_live && layers.some((layer) => layer.path === path), "layer");
    check("tab", () => this.methods.length > 0);
    validState.open = validState.open.filter((name) => {
      const exists = name === "*" || this.groupIndex.has(name);
      if (!exists) reportMissing(`group ${name}`);
      return exists;
    });
    return validState;
  }

  /** Return whether a normalization is offered: in the list, or, if live, with valid limits. */
  acceptsNormalization(name) {
    if (this.controls.layer.normalize.choices.includes(name)) return true;
    const limited = parseLimits(name)?.name;
    return this.is_live && this.controls.layer.normalize.choices_with_limits.includes(limited);
  }
}

/** Parse a normalization with limits, such as "percentile(1, 99)"; return null for other texts. */
export function parseLimits(text) {
  const match = /^(\w+)\(([^,()]+),([^,()]+)\)$/.exec(text);
  if (!match) return null;
  const [low, high] = [Number(match[2]), Number(match[3])];
  const isValid = low < high && Number.isFinite(low) && Number.isFinite(high)
    && (match[1] !== "percentile" || (low >= 0 && high <= 100));
  return isValid ? { name: match[1], low, high } : null;
}

/** Format a normalization with limits, as `parseLimits` reads it. */
export const formatLimits = (name, low, high) => `${name}(${low}, ${high})`;

/** Return names of groups for the address, with a number after a repeated name. */
function makeUniqueKeys(groups) {
  const counts = new Map();
  return groups.map(({ name }) => {
    const count = (counts.get(name) ?? 0) + 1;
    counts.set(name, count);
    return count === 1 ? name : `${name}#${count}`;
  });
}
