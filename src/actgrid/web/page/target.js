/** The input for the class that heatmaps explain. */

import * as data from "./data.js";
import { make, optionField, span } from "./dom.js";
import { getState, updateState } from "./state.js";

/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

export class TargetField {
  /**
   * @param {Model} model
   * @param {string} name Name of the view, for the ids of the elements.
   */
  constructor(model, name) {
    this.model = model;
    this.task = new data.LatestTask((error) => this.showError(error.message));
    this.error = make("p", {
      class: "error wrong", id: `${name}-target-error`, role: "alert", hidden: true,
    });
    const list = `${name}-classes`;
    this.input = make("input", {
      type: "search", list, placeholder: "predicted", autocomplete: "off",
      "aria-describedby": this.error.id,
      onchange: () => this.apply(), oninput: () => this.showError(),
    });
    const labels = model.classes?.labels ?? [];
    const options = labels.map((label, index) => make("option", { value: `${index} ${label}` }));
    const suggestions = make("datalist", { id: list }, ...options);
    const { target } = model.controls.heatmap;
    /** The field; null if the target cannot be selected. */
    this.element = model.targets
      ? optionField("Target", target, span("joined", this.input, suggestions)) : null;
  }

  /** @param {State} state */
  show(state) {
    if (document.activeElement === this.input) return;
    const index = state.target === "predicted" ? null : this.model.findTarget(state.target);
    const label = index === null ? "" : this.model.getLabel(index) ?? "";
    this.input.value = index === null ? "" : `${index} ${label}`.trim();
  }

  /** Use the entered class name or index as target; the predicted class if the input is empty. */
  apply() {
    const text = this.input.value.trim();
    const index = text ? this.model.findTarget(text) : null;
    this.showError();
    if (!text || index !== null) {
      updateState({ target: index === null ? "predicted" : String(index) });
      return;
    }
    // The error message of the server explains the problem and suggests similar names.
    const state = getState();
    const method = this.model.getMethod(state);
    this.task.run(text, async (signal) => {
      const path = data.paths.heatmap(state.image, method.name, text, null, ".json");
      updateState({ target: String((await data.loadJson(path, signal)).target) });
    });
  }

  /** Show an error message for the target; an empty text hides the message. */
  showError(text = "") {
    if (!text) this.task.stop();
    this.input.ariaInvalid = String(Boolean(text));
    this.error.hidden = !text;
    this.error.textContent = text && text[0].toUpperCase() + text.slice(1);
  }
}
