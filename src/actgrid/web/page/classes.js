/** Lists of the classes of an image with the highest scores. */

import { button, formatNumber, formatPercent, make, span } from "./dom.js";

/**
 * @typedef {object} Listeners Actions on a class, which get its index.
 * @property {(index: number | null) => void} point The pointer or the focus is on the class.
 * @property {(index: number) => void} pick
 */

/**
 * Return the name of a class, or its number if it has no name.
 * @param {{index: number, name: string | null}} entry
 */
export const formatClass = ({ index, name }) => name ?? `class ${index}`;

/**
 * Return a function that formats a score of a class.
 * @param {Api.Classes["kind"]} kind
 */
export const getScoreFormat = (kind) => (kind === "probability" ? formatPercent : formatNumber);

export class ClassList {
  /**
   * @param {string} label
   * @param {Listeners | null} listeners Not null: each class is a button.
   */
  constructor(label, listeners = null) {
    this.listeners = listeners;
    this.element = make("ol", { class: "top-classes", "aria-label": label });
  }

  /** Mark the classes as those of the previous image. */
  markStale() {
    this.element.classList.add("stale");
  }

  clear() {
    this.element.replaceChildren();
  }

  /** @param {string} message */
  showError(message) {
    this.element.replaceChildren(make("li", { class: "error" }, message));
  }

  /** @param {Api.Classes | Api.Ablation} classes */
  show({ kind, top }) {
    const values = top.map(({ value }) => Math.abs(value ?? 0));
    const max = kind === "probability" ? 1 : Math.max(...values, 1e-9);
    const format = getScoreFormat(kind);
    this.element.classList.remove("stale");
    this.element.replaceChildren(...top.map((entry) => {
      const bar = make("i", {});
      bar.style.width = `${(100 * Math.max(entry.value ?? 0, 0)) / max}%`;
      const value = "before" in entry
        ? `${format(/** @type {Api.AblatedClass} */ (entry).before)} → ${format(entry.value)}`
        : format(entry.value);
      const parts = [span("label", formatClass(entry)), span("value", value), span("bar", bar)];
      const title = `${formatClass(entry)} (class ${entry.index})`;
      return make("li", { title }, ...this.makeButton(entry.index, parts));
    }));
  }

  /**
   * Return the parts of a class, in a button if there are listeners.
   * @param {number} index
   * @param {HTMLElement[]} parts
   */
  makeButton(index, parts) {
    if (!this.listeners) return parts;
    const { point, pick } = this.listeners;
    const [enter, leave] = [() => point(index), () => point(null)];
    return [button("", {
      onclick: () => pick(index), onpointerenter: enter, onpointerleave: leave, onfocus: enter,
      onblur: leave,
    }, ...parts)];
  }
}
