// Types that the scripts of the page use without an import.

import type { components } from "./openapi";

type Schemas = components["schemas"];

declare global {
  /** The JSON responses of the server, as its OpenAPI description defines them. */
  namespace Api {
    type AblatedClass = Schemas["AblatedClass"];
    type Ablation = Schemas["Ablation"];
    type Attention = Schemas["Attention"];
    type ChannelStats = Schemas["ChannelStats"];
    type Classes = Schemas["Classes"];
    type ColorRange = Schemas["ColorRange"];
    type Control = Schemas["Control"];
    type Dataset = Schemas["Dataset"];
    type Difference = Schemas["Difference"];
    type Group = Schemas["Group"];
    type Heatmap = Schemas["Heatmap"];
    type Histograms = Schemas["Histograms"];
    type Image = Schemas["Image"];
    type Images = Schemas["Images"];
    type Kernel = Schemas["Kernel"];
    type Layer = Schemas["Layer"];
    type Layers = Schemas["Layers"];
    type Method = Schemas["Method"];
    type Model = Schemas["Model"];
    type Node = Schemas["Node"];
    type Progress = Schemas["Progress"];
    type Relevance = Schemas["Relevance"];
    type Score = Schemas["Score"];
    type Tiles = Schemas["Tiles"];
    type TokenGrid = Schemas["TokenGrid"];
    type Token = Schemas["Token"];
  }

  interface DocumentEventMap {
    /** The server does not answer; the detail is the message. */
    "connection-lost": CustomEvent<string>;
    /** The user wants failed tasks to run again. */
    retry: Event;
  }

  interface Window {
    /** What scripts outside of the page can read. */
    actgrid: {
      readonly state: import("../../../src/actgrid/web/page/state.js").State;
      readonly attention: {
        path: string; head: number | null; query: number; weights: number[];
      } | null;
      tileRect(channel: number): import("../../../src/actgrid/web/page/levels.js").Rect | null;
    };
  }
}
