/** The colour bar: the colours of a colormap from low to high, with the values at its ends. */

import { div, formatNumber, getContext, make, span } from "./dom.js";
import { paintLevels } from "./levels.js";

const ALL_LEVELS = { width: 256, height: 1, data: Uint8Array.from({ length: 256 }, (_, i) => i) };

export class ColourBar {
  constructor() {
    this.low = span("value", "");
    this.high = span("value", "");
    const label = "Colours from the lowest to the highest value";
    this.canvas = make("canvas",
      { class: "bar", width: 256, height: 1, role: "img", "aria-label": label });
    this.element = div("colour-scale muted", this.low, this.canvas, this.high);
  }

  /**
   * @param {Uint32Array} lut
   * @param {string} low
   * @param {string} high
   */
  show(lut, low, high) {
    getContext(this.canvas).drawImage(paintLevels(ALL_LEVELS, lut), 0, 0);
    this.low.textContent = low;
    this.high.textContent = high;
  }

  /**
   * Show the values of all tiles of a layer, or of some tiles: numbers if the tiles have the same
   * scale, otherwise the meaning of the ends.
   * @param {Uint32Array} lut
   * @param {Api.ColorRange} range
   * @param {number} start
   * @param {number} [end]
   */
  showRange(lut, range, start = 0, end = range.low.length) {
    const isShared = range.low.length === 1;
    const [low, high] = [range.low, range.high].map((values) =>
      new Set(isShared ? values : values.slice(start, end)));
    if (low.size === 1 && high.size === 1) {
      const [[first], [last]] = [[...low], [...high]];
      this.show(lut, formatNumber(first), formatNumber(last));
    } else {
      this.show(lut, `${range.low_meaning} of each tile`, `${range.high_meaning} of each tile`);
    }
  }
}
