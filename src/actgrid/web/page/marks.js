/** Marks on tiles, which differ in their shapes: channels that are dead, not finite or off. */

import { make, span } from "./dom.js";

/** @import { Rect } from "./levels.js" */

/** @typedef {"dead" | "nonfinite" | "off"} Mark */

const MIN_SIDE = 4; // screen pixels of the smallest tile with a mark
const MARGIN = 0.12; // distance of a mark from the edges of its tile, relative to the tile

/**
 * Symbol and meaning of each mark.
 * @type {Record<Mark, [string, string]>}
 */
const MEANINGS = {
  dead: ["╳", "dead: all values are equal"],
  nonfinite: ["◥", "some values are not finite"],
  off: ["⊘", "switched off"],
};

/**
 * Return the marks of the channels of a layer.
 * @param {Api.ChannelStats} stats
 * @param {number[]} [off] Channels that are switched off.
 */
export function findMarks(stats, off = []) {
  /** @type {Map<number, Mark>} */
  const marks = new Map(stats.dead.map((channel) => [channel, "dead"]));
  stats.nonfinite.forEach((count, channel) => {
    if (count) marks.set(channel, "nonfinite");
  });
  for (const channel of off) marks.set(channel, "off");
  return marks;
}

/** @param {Mark} mark */
export const getMeaning = (mark) => MEANINGS[mark][1];

/**
 * Return elements that explain marks.
 * @param {Iterable<Mark>} marks
 */
export function explainMarks(marks) {
  return [...new Set(marks)].map((mark) => {
    const [symbol, meaning] = MEANINGS[mark];
    return span("mark", make("b", { "aria-hidden": true }, symbol), ` ${meaning}`);
  });
}

/**
 * Draw a mark on a tile, in white with a black border so that it is visible on every colour.
 * @param {CanvasRenderingContext2D} context
 * @param {Rect} tile
 * @param {Mark} mark
 */
export function drawMark(context, { x, y, width, height }, mark) {
  const side = Math.min(width, height);
  if (side < MIN_SIDE) return;
  const [left, right] = [x + MARGIN * side, x + width - MARGIN * side];
  const [top, bottom] = [y + MARGIN * side, y + height - MARGIN * side];
  const path = new Path2D();
  if (mark === "dead") {
    path.moveTo(left, top);
    path.lineTo(right, bottom);
    path.moveTo(left, bottom);
    path.lineTo(right, top);
  } else if (mark === "off") {
    const [x0, y0, radius] = [x + width / 2, y + height / 2, 0.3 * side];
    const offset = radius * Math.SQRT1_2;
    path.arc(x0, y0, radius, 0, 2 * Math.PI);
    path.moveTo(x0 - offset, y0 - offset);
    path.lineTo(x0 + offset, y0 + offset);
  } else {
    path.moveTo(right - 0.4 * side, top);
    path.lineTo(right, top);
    path.lineTo(right, top + 0.4 * side);
    path.closePath();
  }
  const lineWidth = Math.min(Math.max(side / 40, 1), 3);
  context.lineCap = context.lineJoin = "round";
  for (const [colour, border] of /** @type {const} */ ([["#000", 2], ["#fff", 0]])) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = lineWidth + border;
    context.stroke(path);
    if (mark === "nonfinite") context.fill(path);
  }
}
