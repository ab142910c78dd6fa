/** The page: asks for the model, then shows the state, each time it changes, in every part. */

import { ChannelView } from "./channel.js";
import * as data from "./data.js";
import { againButton, announce, button, byId, counted, make, terms, toast,
  withModifier } from "./dom.js";
import { Graph } from "./graph.js";
import { HeatmapView } from "./heatmap.js";
import { Images } from "./images.js";
import { LayerView } from "./layer.js";
import { Model } from "./model.js";
import { get, go, setDefaults, start } from "./state.js";

const THEMES = ["auto", "light", "dark"];
const WIDTHS = { least: 220, most: 1200, first: 348 };
const KEYS = {
  Network: [
    ["↑ ↓ ← →", "next card"], ["Enter", "show the layer"], ["+ −", "open, fold a group"],
    ["/", "find a layer"],
  ],
  Layer: [
    ["↑ ↓ ← →", "next channel"], ["Enter", "open the channel"], ["+ −", "magnify"],
    ["0", "show all"], ["Shift + arrows", "move"],
  ],
  Channel: [["← →", "previous, next channel"], ["Esc", "back to the layer"]],
  Anywhere: [["?", "these keys"]],
};

async function main() {
  byId("unstarted").remove();
  themes();
  const main = byId("view");
  try {
    const model = new Model(await (await data.request(data.paths.model)).json());
    const images = new Images(model);
    await images.listMore();
    begin(model, images);
  } catch (error) {
    if (!(error instanceof data.Failure)) console.error(error);
    byId("images").replaceChildren();
    main.replaceChildren(make("div", { class: "note", role: "alert" }, error.message, " ",
      button("Try again", { onclick: () => location.reload() })));
  }
}

function begin(model, images) {
  describe(model);
  const graph = new Graph(model);
  const layer = new LayerView(model, images);
  const channel = new ChannelView(model, images, layer);
  const heatmap = new HeatmapView(model, images);
  const parts = [images, layer, channel, heatmap, graph];
  const check = (state, unknown) => {
    const tell = (what) => toast(`There is no ${what} here: shown without it.`);
    for (const part of unknown) toast(`The link says ${part}, which means nothing here.`);
    const known = model.checked(state, tell);
    checkImages(known, images);
    return known;
  };
  const show = (state) => {
    document.body.dataset.pane = state.pane;
    document.title = `${model.nodes[model.layer(state)].path} · ${model.name} · actgrid`;
    showTabs(model, state);
    for (const part of parts) part.show(state);
  };
  connect(images, show);
  setDefaults({ ...model.defaults, image: images.first });
  start(check, show);
  window.actgrid = {
    /** What is looked at. */
    get state() {
      return get();
    },
    /** Where a channel's tile is in the window: {x, y, width, height}, or null. */
    tileRect: (channel) => layer.tileRect(channel),
  };
}

/** A link may name images that are no longer there: those of the list so far are known. */
async function checkImages(state, images) {
  for (const name of ["image", "compare"]) {
    const id = state[name];
    if (id === null || images.items.has(id)) continue;
    try {
      await data.picture(data.paths.thumbnail(id));
      await images.listTo(id);
    } catch (error) {
      if (error.status === 0 || get()[name] !== id) continue;
      toast(`There is no image ${id} here: shown without it.`);
      go({ [name]: name === "image" ? images.first : null }, { step: false });
    }
  }
}

function describe(model) {
  byId("title").replaceChildren(model.name);
  const layers = model.nodes.filter(({ drawn }) => drawn).length;
  const counts = [counted(layers, "layer"), counted(model.parameters, "parameter")];
  byId("about").textContent = counts.join(" · ");
  byId("about").title = `actgrid ${model.version}`;
}

function showTabs(model, state) {
  for (const name of ["layer", "heatmap"]) {
    const tab = byId(`tab-${name}`);
    tab.ariaSelected = String(state.tab === name);
    tab.tabIndex = state.tab === name ? 0 : -1;
    tab.hidden = name === "heatmap" && model.methods.length === 0;
  }
  for (const one of document.querySelectorAll(".panes button")) {
    one.ariaCurrent = one.dataset.pane === state.pane ? "true" : null;
  }
}

/** Everything around the parts: tabs, panes, keys, the theme, the splitter, the lost server. */
function connect(images, show) {
  for (const name of ["layer", "heatmap"]) {
    const shown = () => name === "layer" && get().tab === name;
    byId(`tab-${name}`).addEventListener("click", () => {
      go(shown() ? { channel: null } : { tab: name });
    });
  }
  document.querySelector(".tabs").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = get().tab === "layer" ? "heatmap" : "layer";
    if (byId(`tab-${other}`).hidden) return;
    go({ tab: other });
    byId(`tab-${other}`).focus();
  });
  for (const one of document.querySelectorAll(".panes button")) {
    one.addEventListener("click", () => go({ pane: one.dataset.pane }));
  }
  document.addEventListener("lost", ({ detail }) => showLost(detail));
  document.addEventListener("again", () => {
    byId("banner").hidden = true;
    show(get());
    images.listMore().catch((error) => data.lost(error));
  });
  byId("keys-button").addEventListener("click", showKeys);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (typing || withModifier(event)) return;
    if (event.key === "?") showKeys();
    else if (event.key === "/") {
      const finder = document.querySelector("#graph input");
      if (!finder.offsetParent) go({ pane: "graph" });
      finder.focus();
    } else return;
    event.preventDefault();
  });
  splitter();
}

function showLost(message) {
  byId("banner").hidden = false;
  byId("banner").replaceChildren(message, " ", againButton());
}

function showKeys() {
  const dialog = make("dialog", { class: "keys", "aria-label": "Keys" },
    ...Object.entries(KEYS).map(([title, keys]) => make("section", {}, make("h3", {}, title),
      terms(keys.map(([key, what]) => [make("kbd", {}, key), what])))),
    button("Close", { onclick: () => dialog.close() }));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** What is kept for this browser; some pages may keep nothing. */
function kept(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`actgrid-${name}`, value);
    return localStorage.getItem(`actgrid-${name}`);
  } catch {
    return null;
  }
}

function themes() {
  const set = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const name = `Colours of the page: ${theme}`;
    const sign = { auto: "◐", light: "☀", dark: "☾" }[theme];
    Object.assign(byId("theme"), { textContent: sign, ariaLabel: name, title: name });
  };
  let theme = THEMES.includes(kept("theme")) ? kept("theme") : "auto";
  set(theme);
  byId("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    kept("theme", theme);
    set(theme);
    announce(`Colours of the page: ${theme}`);
  });
}

function splitter() {
  const bar = byId("splitter");
  let width = Number(kept("width")) || WIDTHS.first;
  const set = (wanted) => {
    width = Math.min(Math.max(wanted, WIDTHS.least), WIDTHS.most);
    document.body.style.setProperty("--graph", `${width}px`);
    bar.ariaValueNow = String(Math.round(width));
  };
  Object.assign(bar, { ariaValueMin: String(WIDTHS.least), ariaValueMax: String(WIDTHS.most) });
  set(width);
  bar.addEventListener("pointerdown", (event) => {
    bar.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  bar.addEventListener("pointermove", (event) => {
    if (bar.hasPointerCapture(event.pointerId)) set(event.clientX - 2);
  });
  bar.addEventListener("pointerup", () => kept("width", width));
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -24, ArrowRight: 24 }[event.key];
    if (!step) return;
    set(width + step);
    kept("width", width);
    event.preventDefault();
  });
}

main();
