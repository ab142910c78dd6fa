/** The description of the model, and the parts of it that a state refers to. */

import { decodeColormap } from "./levels.js";
import { defaults } from "./state.js";
import { parseChannels } from "./switches.js";

/** @import { State } from "./state.js" */

/** @type {(string | null)[]} */
const HEATMAP_KINDS = ["image", "volume", "sequence"];

export class Model {
  /** @param {Api.Model} about */
  constructor(about) {
    this.name = about.name;
    this.version = about.version;
    this.is_live = about.is_live;
    this.parameters = about.parameters;
    this.input_kind = about.input_kind;
    this.nodes = about.nodes;
    this.edges = about.edges;
    this.inputs = about.inputs;
    this.groups = about.groups;
    this.classes = about.classes;
    this.controls = about.controls;
    this.methods = about.methods;
    this.targets = about.targets;
    this.uploads = about.uploads;
    this.other = about.other;
    this.maximize = about.maximize;
    this.switches = about.switches;
    this.colormaps = about.colormaps;
    this.index = new Map(this.nodes.map((node, index) => [node.path, index]));
    this.groupKeys = makeUniqueKeys(this.groups);
    this.groupIndex = new Map(this.groupKeys.map((key, index) => [key, index]));
    /** @param {(node: Api.Node) => boolean} matches */
    const findDrawn = (matches) =>
      this.nodes.findIndex((node) => node.is_drawable && matches(node));
    /** @type {Map<string, Uint32Array>} */
    this.luts = new Map();
    this.lastNodes = this.findLastNodes();
    // The initial layer is the first one with a kernel, together with its activation function.
    const withKernel = findDrawn((node) => node.kernel);
    const first = Math.max(withKernel < 0 ? findDrawn(() => true) : withKernel, 0);
    const { group } = this.nodes[first];
    const isUnit = group !== null && this.groups[group].kind === "unit";
    this.initialLayer = isUnit ? this.lastNodes[group] : first;
  }

  /** Return the last drawable node of each group, which the card of the closed group shows. */
  findLastNodes() {
    /** @type {(number | null)[]} */
    const lastNodes = this.groups.map(() => null);
    this.nodes.forEach((node, index) => {
      for (const group of this.getGroups(index)) {
        const old = lastNodes[group];
        if (node.is_drawable || old === null || !this.nodes[old].is_drawable) {
          lastNodes[group] = index;
        }
      }
    });
    return lastNodes.map((index) => index ?? 0); // each group contains a node
  }

  /**
   * Return the groups that contain a node, outermost first.
   * @param {number} index
   */
  getGroups(index) {
    const groups = [];
    let { group } = this.nodes[index];
    while (group !== null) {
      groups.unshift(group);
      group = this.groups[group].parent;
    }
    return groups;
  }

  /**
   * The default values of the state.
   * @returns {Partial<State>}
   */
  get defaults() {
    const { methods } = this;
    const { normalize, scope, order, cmap } = this.controls.layer;
    const usable = methods.filter(({ layer }) => !layer || this.heatmapLayers.length);
    const preferred = this.controls.heatmap.method.default;
    const method = usable.find(({ name }) => name === preferred) ?? usable[0] ?? methods[0];
    return {
      layer: this.nodes[this.initialLayer].path,
      normalize: String(normalize.default),
      scope: String(scope.default),
      order: String(order.default),
      cmap: String(cmap.default),
      method: method?.name ?? null,
      alpha: Number(this.controls.heatmap.alpha.default),
    };
  }

  /**
   * Return the node index of the layer in a state, which must be valid.
   * @param {State} state
   */
  getLayerIndex(state) {
    return this.index.get(state.layer) ?? this.initialLayer;
  }

  /**
   * Return the attention of the layer in a state, which must be valid; null if it has none.
   * @param {State} state
   */
  getAttention(state) {
    return this.nodes[this.getLayerIndex(state)].attention;
  }

  /**
   * Return the 256 colours of a colormap as pixels.
   * @param {string} name
   */
  getLut(name) {
    const lut = this.luts.get(name) ?? decodeColormap(this.colormaps[name]);
    this.luts.set(name, lut);
    return lut;
  }

  /**
   * Return the label of a class; null without labels.
   * @param {number} index
   */
  getLabel(index) {
    return this.classes?.labels?.[index] ?? null;
  }

  /**
   * Return the index of the class with a number or a unique name; null if there is none.
   * @param {string} text
   */
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

  /**
   * Return the attribution method of a state, which must be valid.
   * @param {State} state
   */
  getMethod(state) {
    return this.methods.find(({ name }) => name === state.method) ?? this.methods[0];
  }

  /**
   * Return the attribution methods that a state compares.
   * @param {State} state
   */
  getComparedMethods({ methods }) {
    const usable = this.methods.filter(({ layer }) => !layer || this.heatmapLayers.length);
    const preferred = usable.filter(({ is_compared: isCompared }) => isCompared);
    if (methods === null) return this.is_live && preferred.length ? preferred : usable;
    const names = methods.split(",");
    return names.flatMap((name) => this.methods.filter((method) => method.name === name));
  }

  /** Layers whose activation maps can be used by a method. */
  get heatmapLayers() {
    return this.nodes.filter((node) => node.is_drawable && HEATMAP_KINDS.includes(node.kind));
  }

  /**
   * Return the set of groups that are open in a state.
   * @param {State} state
   */
  getOpenGroups(state) {
    const areAllOpen = state.open.includes("*");
    /** @param {string} key */
    const isOpen = (key) => areAllOpen || state.open.includes(key);
    return new Set([...this.groups.keys()].filter((group) => isOpen(this.groupKeys[group])));
  }

  /**
   * Return the names of open groups for a state; ["*"] for all groups.
   * @param {Set<number>} groups
   */
  formatOpenGroups(groups) {
    if (groups.size && groups.size === this.groups.length) return ["*"];
    return [...groups].sort((a, b) => a - b).map((group) => this.groupKeys[group]);
  }

  /**
   * Return a state with defaults in place of unknown values, which are reported.
   * @param {State} state
   * @param {(name: string) => void} reportMissing
   */
  validateState(state, reportMissing) {
    const validState = { ...state };
    const initial = defaults();
    /**
     * @template {keyof State} Name
     * @param {Name} name
     * @param {(value: NonNullable<State[Name]>) => boolean} isValid
     * @param {string} [noun]
     */
    const check = (name, isValid, noun = name) => {
      const value = validState[name];
      if (value === initial[name] || (value !== null && isValid(value))) return;
      reportMissing(`${noun} ${value}`);
      validState[name] = initial[name];
    };
    check("layer", (path) => this.nodes[this.index.get(path) ?? -1]?.is_drawable);
    const node = this.nodes[this.getLayerIndex(validState)];
    check("channel", (channel) => node.channels === null || channel < node.channels);
    check("normalize", (name) => this.acceptsNormalization(name), "normalization");
    check("scope", (name) => this.controls.layer.scope.choices.includes(name));
    check("order", (name) => this.controls.layer.order.choices.includes(name));
    check("cmap", (name) => name in this.colormaps, "colormap");
    check("colours", (name) => name in this.colormaps, "colormap");
    check("columns", (count) => count > 0, "number of columns");
    check("method", (name) => this.methods.some((method) => method.name === name));
    check("methods", (names) => names.split(",").every(
      (name) => this.methods.some((method) => method.name === name)));
    check("target", (text) => this.targets && this.findTarget(text) !== null, "class");
    const layers = this.heatmapLayers;
    check("over", (path) => this.is_live && layers.some((layer) => layer.path === path), "layer");
    check("tab", (tab) => (tab === "heads" ? node.attention !== null
      : tab === "models" ? this.other !== null : this.methods.length > 0));
    check("off", (text) => this.acceptsSwitches(text), "channel");
    check("head", (head) => head < (node.attention?.heads ?? Infinity));
    validState.open = validState.open.filter((name) => {
      const exists = name === "*" || this.groupIndex.has(name);
      if (!exists) reportMissing(`group ${name}`);
      return exists;
    });
    return validState;
  }

  /**
   * Return whether channels of a node can be switched off, which changes the scores of the classes.
   * @param {number} layer
   */
  canSwitch(layer) {
    const node = this.nodes[layer];
    return this.is_live && this.switches && this.classes !== null && this.classes.node !== layer
      && Boolean(node?.is_drawable) && node.channels !== null && node.kind !== "attention";
  }

  /**
   * Return whether switched-off channels exist.
   * @param {string} text
   */
  acceptsSwitches(text) {
    const channels = parseChannels(text);
    return channels !== null && [...channels].every(([layer, numbers]) => this.canSwitch(layer)
      && numbers.every((channel) => channel < (this.nodes[layer].channels ?? 0)));
  }

  /**
   * Return whether a normalization is offered: in the list, or, if live, with valid limits.
   * @param {string} name
   */
  acceptsNormalization(name) {
    const { choices, choices_with_limits: withLimits } = this.controls.layer.normalize;
    const limits = parseLimits(name);
    return choices.includes(name)
      || (this.is_live && limits !== null && withLimits.includes(limits.name));
  }
}

/**
 * Parse a normalization with limits, such as "percentile(1, 99)"; return null for other texts.
 * @param {string} text
 */
export function parseLimits(text) {
  const match = /^(\w+)\(([^,()]+),([^,()]+)\)$/.exec(text);
  if (!match) return null;
  const [low, high] = [Number(match[2]), Number(match[3])];
  const isValid = low < high && Number.isFinite(low) && Number.isFinite(high)
    && (match[1] !== "percentile" || (low >= 0 && high <= 100));
  return isValid ? { name: match[1], low, high } : null;
}

/**
 * Format a normalization with limits, as `parseLimits` reads it.
 * @param {string} name
 * @param {number | string} low
 * @param {number | string} high
 */
export const formatLimits = (name, low, high) => `${name}(${low}, ${high})`;

/**
 * Return names of groups for the address, with a number after a repeated name.
 * @param {Api.Group[]} groups
 */
function makeUniqueKeys(groups) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  return groups.map(({ name }) => {
    const count = (counts.get(name) ?? 0) + 1;
    counts.set(name, count);
    return count === 1 ? name : `${name}#${count}`;
  });
}
