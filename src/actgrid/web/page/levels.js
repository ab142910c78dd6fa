/** Levels, colormaps, and grids made of them: what actgrid.render does, in the browser. */

import { blank } from "./dom.js";

const STRIP = 1 << 22; // pixels decoded at a time
const LARGEST = 1 << 24; // pixels of a canvas that every browser can have
const LONGEST = 32767; // and on a side

/** Return the bytes of a grayscale PNG as they are in it, part by part. */
export async function decodeLevels(blob) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const image = await createImageBitmap(blob, options);
  const { width, height } = image;
  const data = new Uint8Array(width * height);
  const across = Math.min(width, 8192);
  const down = Math.max(1, Math.min(height, 8192, Math.floor(STRIP / across)));
  const canvas = blank(across, down);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += down) {
    for (let left = 0; left < width; left += across) {
      const wide = Math.min(across, width - left);
      const high = Math.min(down, height - top);
      context.drawImage(image, left, top, wide, high, 0, 0, wide, high);
      const rgba = context.getImageData(0, 0, wide, high).data;
      for (let y = 0, from = 0; y < high; y += 1) {
        let to = (top + y) * width + left;
        for (const end = to + wide; to < end; to += 1, from += 4) data[to] = rgba[from];
      }
    }
  }
  image.close();
  return { width, height, data };
}

/** Return the 256 colours of a colormap as pixels. */
export function colours(base64) {
  const raw = atob(base64);
  const bytes = new Uint8ClampedArray(1024);
  for (let level = 0; level < 256; level += 1) {
    for (let part = 0; part < 3; part += 1) {
      bytes[4 * level + part] = raw.charCodeAt(3 * level + part);
    }
    bytes[4 * level + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}

/** Return how many tiles in a row make the picture nearest to square, as actgrid.render does. */
export function nearSquare(count, height, width, padding) {
  let best = Infinity;
  let found = 1;
  for (let columns = count; columns > 0; columns -= 1) {
    const wide = columns * (width + padding) - padding;
    const high = Math.ceil(count / columns) * (height + padding) - padding;
    const ratio = Math.max(wide, high) / Math.min(wide, high);
    if (ratio < best) [best, found] = [ratio, columns];
  }
  return found;
}

/** Where the tiles of some channels stand in a picture. */
export class Grid {
  constructor(tiles, channels, wanted = null) {
    const { height, width, slices, joined } = tiles;
    const count = channels.length * slices;
    this.tiles = tiles;
    this.channels = channels;
    this.padding = joined ? 0 : 1;
    const rows = Math.max(1, Math.floor(LONGEST / (height + this.padding)));
    const least = Math.max(wanted ?? this.automatic(count), Math.ceil(count / rows));
    const across = Math.max(1, Math.floor(LONGEST / (width + this.padding)));
    this.columns = Math.min(least, across, Math.max(count, 1));
    this.rows = Math.ceil(count / this.columns);
    this.count = count;
    if (this.columns * (width + 1) * this.rows * (height + 1) > LARGEST) this.padding = 0;
    this.width = this.columns * (width + this.padding) - this.padding;
    this.height = this.rows * (height + this.padding) - this.padding;
    this.places = new Map(channels.map((channel, position) => [channel, position]));
  }

  automatic(count) {
    const { height, width, slices, joined } = this.tiles;
    if (slices > 1) return slices;
    if (joined && height > 1) return count; // a sequence is one picture
    return nearSquare(count, height, width, this.padding);
  }

  /** Left, top, width and height of a cell. */
  cell(index) {
    const { height, width } = this.tiles;
    return {
      x: (index % this.columns) * (width + this.padding),
      y: Math.floor(index / this.columns) * (height + this.padding),
      width,
      height,
    };
  }

  /** The cell at a pixel, with the padding after it; null outside. */
  at(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    const column = Math.floor(x / (this.tiles.width + this.padding));
    const index = Math.floor(y / (this.tiles.height + this.padding)) * this.columns + column;
    return index < this.count ? index : null;
  }

  channel(cell) {
    return this.channels[Math.floor(cell / this.tiles.slices)];
  }

  /** The first cell of a channel; undefined if it is not shown. */
  first(channel) {
    const position = this.places.get(channel);
    return position === undefined ? undefined : position * this.tiles.slices;
  }

  /** Draw the tiles in colour on a canvas of one pixel for each level. */
  paint(levels, lut) {
    const canvas = blank(this.width, this.height);
    const context = canvas.getContext("2d");
    const image = new ImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const { height, width, slices, columns } = this.tiles;
    for (let cell = 0; cell < this.count; cell += 1) {
      const tile = this.channel(cell) * slices + (cell % slices);
      const x = (tile % columns) * width;
      const y = Math.floor(tile / columns) * height;
      const at = this.cell(cell);
      const start = at.y * this.width + at.x;
      colour(levels, { x, y, width, height }, lut, pixels, start, this.width);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }
}

/** Draw levels in colour, one pixel for each, of a part of them. */
export function painted(levels, lut, part = { ...levels, x: 0, y: 0 }) {
  const canvas = blank(part.width, part.height);
  const image = new ImageData(part.width, part.height);
  colour(levels, part, lut, new Uint32Array(image.data.buffer), 0, part.width);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Write the colours of a part of the levels among pixels, from `to` on, in rows of `stride`. */
function colour(levels, { x, y, width, height }, lut, pixels, to, stride) {
  for (let row = 0; row < height; row += 1) {
    const from = (y + row) * levels.width + x;
    const start = to + row * stride;
    for (let right = 0; right < width; right += 1) {
      pixels[start + right] = lut[levels.data[from + right]];
    }
  }
}
