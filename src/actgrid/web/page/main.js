/** Entry point of the page: loads the model, and shows each change of the state in all views. */

import { AttentionView } from "./attention.js";
import { ChannelView } from "./channel.js";
import * as data from "./data.js";
import { announce, ARROW_DIRECTIONS, button, byId, definitionList, formatCount, hasModifier, make, retryButton,
  showToast } from "./dom.js";
import { ComparisonView } from "./comparison.js";
import { Graph } from "./graph.js";
import { HeatmapView } from "./heatmap.js";
import { Images } from "./images.js";
import { LayerView } from "./layer.js";
import { Model } from "./model.js";
import { ModelsView } from "./models.js";
import { Switches } from "./switches.js";
import { getState, setDefaults, start, updateState } from "./state.js";

/** @import { State } from "./state.js" */

const TABS = /** @type {const} */ (["layer", "heads", "heatmap", "methods", "models"]);
/** @type {Record<string, string>} */
const THEME_SYMBOLS = { auto: "◐", light: "☀", dark: "☾" };
const GRAPH_WIDTH = { min: 220, max: 1200, initial: 348 }; // pixels
/** @type {Record<string, [string, string][]>} */
const KEYS = {
  Network: [
    ["↑ ↓ ← →", "next card"], ["Enter", "show the layer"],
    ["+ −", "expand, collapse a group"], ["/", "find a layer"],
  ],
  Layer: [
    ["↑ ↓ ← →", "next channel"], ["Enter", "open the channel"], ["+ −", "zoom"],
    ["0", "fit to the view"], ["Shift + arrows", "pan"],
  ],
  Heads: [["↑ ↓ ← →", "next patch or token"], ["Enter", "keep the token"]],
  Channel: [
    ["← →", "previous, next channel"], ["O", "switch the channel off or on"],
    ["Esc", "back to the layer"],
  ],
  Anywhere: [["?", "list of keys"]],
};

async function main() {
  byId("unstarted").remove();
  setUpTheme();
  const view = byId("view");
  try {
    const model = new Model(await (await data.request(data.paths.model)).json());
    const images = new Images(model);
    await images.listMore();
    showViews(model, images);
  } catch (error) {
    if (!(error instanceof data.RequestError)) console.error(error);
    byId("images").replaceChildren();
    view.replaceChildren(make("div", { class: "note", role: "alert" }, error.message, " ",
      button("Try again", { onclick: () => location.reload() })));
  }
}

/**
 * @param {Model} model
 * @param {Images} images
 */
function showViews(model, images) {
  showSummary(model);
  const graph = new Graph(model);
  const layer = new LayerView(model, images);
  const channel = new ChannelView(model, images, layer);
  const heatmap = new HeatmapView(model, images);
  const comparison = new ComparisonView(model, images);
  const attention = new AttentionView(model, images);
  const models = new ModelsView(model, images);
  const switches = new Switches(model);
  const views = [switches, images, layer, channel, attention, heatmap, comparison, models, graph];
  /** @type {(state: State, invalid: string[]) => State} */
  const validate = (state, invalid) => {
    /** @param {string} name */
    const reportMissing = (name) => showToast(`Ignored in the link: ${name} does not exist.`);
    for (const parameter of invalid) showToast(`Ignored in the link: ${parameter} is not valid.`);
    const validState = model.validateState(state, reportMissing);
    checkImages(validState, images);
    return validState;
  };
  /** @param {State} state */
  const show = (state) => {
    document.body.dataset.pane = state.pane;
    document.title = `${model.nodes[model.getLayerIndex(state)].path} · ${model.name} · actgrid`;
    showTabs(model, state);
    for (const view of views) view.show(state);
  };
  listenForEvents(images, graph, show);
  setDefaults({ ...model.defaults, image: images.firstId });
  start(validate, show);
  window.actgrid = {
    /** The state of the view. */
    get state() {
      return getState();
    },
    /** Position of the tile of a channel in the window: {x, y, width, height}, or null. */
    tileRect: (index) => layer.getTileRect(index),
    /** The attention that the heads view shows: {path, head, query, weights}, or null. */
    get attention() {
      return attention.shown;
    },
  };
}

/**
 * Check with the server that the images of a link exist, unless they are in the list already.
 * @param {State} state
 * @param {Images} images
 */
async function checkImages(state, images) {
  for (const name of /** @type {const} */ (["image", "compare"])) {
    const id = state[name];
    if (id === null || images.items.has(id)) continue;
    try {
      await data.loadImageUrl(data.paths.thumbnail(id));
      await images.listTo(id);
    } catch (error) {
      if (error.status === 0 || getState()[name] !== id) continue;
      showToast(`Ignored in the link: image ${id} does not exist.`);
      updateState({ [name]: name === "image" ? images.firstId : null }, { newEntry: false });
    }
  }
}

/** @param {Model} model */
function showSummary(model) {
  byId("title").replaceChildren(model.name);
  const layers = model.nodes.filter((node) => node.is_drawable).length;
  const counts = [formatCount(layers, "layer"), formatCount(model.parameters, "parameter")];
  byId("about").textContent = counts.join(" · ");
  byId("about").title = `actgrid ${model.version}`;
}

/**
 * @param {Model} model
 * @param {State} state
 */
function showTabs(model, state) {
  for (const name of TABS) {
    const tab = byId(`tab-${name}`);
    tab.ariaSelected = String(state.tab === name);
    tab.tabIndex = state.tab === name ? 0 : -1;
    tab.hidden = (["heatmap", "methods"].includes(name) && model.methods.length === 0)
      || (name === "heads" && model.getAttention(state) === null)
      || (name === "models" && model.other === null);
  }
  for (const paneButton of getPaneButtons()) {
    paneButton.ariaCurrent = paneButton.dataset.pane === state.pane ? "true" : null;
  }
}

/** @returns {NodeListOf<HTMLElement>} */
const getPaneButtons = () => document.querySelectorAll(".panes button");

/**
 * Add the listeners of tabs, panes, keys, the splitter and connection errors.
 * @param {Images} images
 * @param {Graph} graph
 * @param {(state: State) => void} show
 */
function listenForEvents(images, graph, show) {
  for (const name of TABS) {
    const isLayerShown = () => name === "layer" && getState().tab === name;
    byId(`tab-${name}`).addEventListener("click", () => {
      updateState(isLayerShown() ? { channel: null } : { tab: name });
    });
  }
  byId("tabs").addEventListener("keydown", (event) => {
    const step = ARROW_DIRECTIONS[event.key]?.[0];
    const tabs = TABS.filter((name) => !byId(`tab-${name}`).hidden);
    if (!step) return;
    const next = tabs[(tabs.indexOf(getState().tab) + step + tabs.length) % tabs.length];
    updateState({ tab: next });
    byId(`tab-${next}`).focus();
  });
  for (const paneButton of getPaneButtons()) {
    const pane = /** @type {State["pane"]} */ (paneButton.dataset.pane);
    paneButton.addEventListener("click", () => updateState({ pane }));
  }
  document.addEventListener("connection-lost", ({ detail }) => showConnectionError(detail));
  document.addEventListener("retry", () => {
    byId("banner").hidden = true;
    show(getState());
    images.listMore().catch((error) => data.reportLostConnection(error));
  });
  byId("keys-button").addEventListener("click", showKeys);
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    const isTyping = target instanceof Element && target.closest("input, select, textarea, dialog");
    if (isTyping || hasModifier(event)) return;
    if (event.key === "?") showKeys();
    else if (event.key === "/") {
      if (!graph.filter.offsetParent) updateState({ pane: "graph" });
      graph.filter.focus();
    } else return;
    event.preventDefault();
  });
  setUpSplitter();
}

/** @param {string} message */
function showConnectionError(message) {
  byId("banner").hidden = false;
  byId("banner").replaceChildren(message, " ", retryButton());
}

function showKeys() {
  const dialog = make("dialog", { class: "keys", "aria-label": "Keys" },
    ...Object.entries(KEYS).map(([title, keys]) => make("section", {}, make("h3", {}, title),
      definitionList(keys.map(([key, action]) => [make("kbd", {}, key), action])))),
    button("Close", { onclick: () => dialog.close() }));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * Store a setting if a value is given, and return it; null if the browser denies storage.
 * @param {string} name
 * @param {string} [value]
 */
function accessSetting(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`actgrid-${name}`, value);
    return localStorage.getItem(`actgrid-${name}`);
  } catch {
    return null;
  }
}

function setUpTheme() {
  /** @param {string} theme */
  const applyTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const name = `Theme: ${theme}`;
    const textContent = THEME_SYMBOLS[theme];
    Object.assign(byId("theme"), { textContent, ariaLabel: name, title: name });
  };
  const setting = accessSetting("theme") ?? "auto";
  let theme = setting in THEME_SYMBOLS ? setting : "auto";
  applyTheme(theme);
  byId("theme").addEventListener("click", () => {
    const themes = Object.keys(THEME_SYMBOLS);
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    accessSetting("theme", theme);
    applyTheme(theme);
    announce(`Theme: ${theme}`);
  });
}

function setUpSplitter() {
  const bar = byId("splitter");
  let width = Number(accessSetting("width")) || GRAPH_WIDTH.initial;
  /** @param {number} newWidth */
  const setWidth = (newWidth) => {
    width = Math.min(Math.max(newWidth, GRAPH_WIDTH.min), GRAPH_WIDTH.max);
    document.body.style.setProperty("--graph", `${width}px`);
    bar.ariaValueNow = String(Math.round(width));
  };
  const { min, max } = GRAPH_WIDTH;
  Object.assign(bar, { ariaValueMin: String(min), ariaValueMax: String(max) });
  setWidth(width);
  bar.addEventListener("pointerdown", (event) => {
    bar.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  bar.addEventListener("pointermove", (event) => {
    if (bar.hasPointerCapture(event.pointerId)) setWidth(event.clientX - 2);
  });
  bar.addEventListener("pointerup", () => accessSetting("width", String(width)));
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -24, ArrowRight: 24 }[event.key];
    if (!step) return;
    setWidth(width + step);
    accessSetting("width", String(width));
    event.preventDefault();
  });
}

main();
