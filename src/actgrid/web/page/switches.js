/** The channels that the user has switched off, and the scores of the classes without them. */

import { formatClass, getScoreFormat } from "./classes.js";
import * as data from "./data.js";
import { announce, button, byId, span } from "./dom.js";
import { getState, updateState } from "./state.js";

/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

/** @typedef {Map<number, number[]>} Channels Channels by layer. */

const MAX_BUTTONS = 12; // channels with a button of their own

/**
 * Parse the switched-off channels of a state, such as "4:0,3;9:1"; null for another form.
 * @param {string | null} text
 * @returns {Channels | null}
 */
export function parseChannels(text) {
  if (text === null) return new Map();
  const form = /^\d{1,9}:\d{1,9}(,\d{1,9})*(;\d{1,9}:\d{1,9}(,\d{1,9})*)*$/;
  if (!form.test(text)) return null;
  return new Map(text.split(";").map((part) => {
    const [layer, channels] = part.split(":");
    return [Number(layer), channels.split(",").map(Number)];
  }));
}

/**
 * Return the channels of a layer that are switched off in a state, which must be valid.
 * @param {State} state
 * @param {number} layer
 */
export const getSwitchedOff = ({ off }, layer) => parseChannels(off)?.get(layer) ?? [];

/**
 * Switch a channel off, or on if it is off.
 * @param {number} layer
 * @param {number} channel
 */
export function toggleChannel(layer, channel) {
  const channels = parseChannels(getState().off) ?? new Map();
  const before = channels.get(layer) ?? [];
  const isOff = before.includes(channel);
  const after = isOff ? before.filter((/** @type {number} */ other) => other !== channel)
    : [...before, channel].sort((a, b) => a - b);
  channels.delete(layer);
  if (after.length) channels.set(layer, after);
  const parts = [...channels].sort(([a], [b]) => a - b)
    .map(([index, numbers]) => `${index}:${numbers.join(",")}`);
  updateState({ off: parts.join(";") || null });
}

/** The strip above the views that lists the switched-off channels. */
export class Switches {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.list = span("joined");
    this.effect = span("effect");
    this.task = new data.LatestTask((error) => this.showEffect(error.message));
    byId("switched").append(span("muted", "Switched off:"), this.list,
      button("Switch all on", { onclick: () => updateState({ off: null }) }), this.effect);
  }

  /** @param {State} state */
  show(state) {
    const channels = [...parseChannels(state.off) ?? []]
      .flatMap(([layer, numbers]) => numbers.map((channel) => ({ layer, channel })));
    byId("switched").hidden = !channels.length;
    if (!channels.length) {
      this.task.stop();
      return;
    }
    const buttons = channels.slice(0, MAX_BUTTONS).map(({ layer, channel }) => {
      const name = `${this.model.nodes[layer].path} ${channel}`;
      const onclick = () => toggleChannel(layer, channel);
      return button(`${name} ×`, { "aria-label": `Switch on ${name}`, onclick });
    });
    const others = channels.length - buttons.length;
    this.list.replaceChildren(...buttons, others > 0 ? `and ${others} more` : "");
    if (!state.image) return;
    const path = data.paths.ablation(state.image, String(state.off));
    this.task.run(path, async (signal) => {
      /** @type {Api.Ablation} */
      const { kind, top } = await data.loadJson(path, signal);
      const [first] = [...top].sort((a, b) => (b.before ?? 0) - (a.before ?? 0));
      const format = getScoreFormat(kind);
      this.showEffect(`${formatClass(first)} ${format(first.before)} → ${format(first.value)}`);
      announce(this.effect.textContent ?? "");
    });
  }

  /** @param {string} text */
  showEffect(text) {
    this.effect.textContent = text;
  }
}
