/** The token that a server may want: from the address, from this tab, or typed by the user. */

import { button, make, soft } from "./dom.js";

// A proxy may serve other viewers under other paths of the same origin.
const KEY = `actgrid-token ${location.pathname}`;
const EXPLANATION = "This server asks for a token. It is printed where the server was started, "
  + "in the address of the page after “?token=”.";

let token = fromAddress(location.search) ?? kept();
let asking = null;

/** The headers that show the token to the server. */
export const authorization = () => (token === null ? {} : { Authorization: `Bearer ${token}` });

/** The token in use; null if there is none. */
export const currentToken = () => token;

/**
 * Ask the user for a token in place of one that the server refused; return whether there is one.
 * All requests that were refused wait for the same answer.
 */
export function askToken(refused) {
  if (token !== refused) return Promise.resolve(true);
  asking ??= showForm(refused).finally(() => { asking = null; });
  return asking;
}

/** Show the form until a token is accepted, or until the user closes it. */
function showForm(refused) {
  const input = make("input", {
    type: "password", "aria-label": "Token", autocomplete: "off", spellcheck: "false",
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      submit();
    },
  });
  const problem = make("p", { class: "error", role: "alert" },
    refused === null ? "" : "The token of this page is wrong.");
  const dialog = make("dialog", { class: "token", "aria-label": "Access" },
    make("h2", {}, "Token"), soft(EXPLANATION),
    // Nothing is ever submitted: a frame without forms would swallow it.
    make("form", { class: "tools" }, input,
      button("Open", { class: "strong", onclick: () => submit() })), problem);

  async function submit() {
    const typed = fromAddress(input.value) ?? input.value.trim();
    if (!typed) return;
    problem.textContent = "";
    problem.textContent = await refusal(typed);
    input.ariaInvalid = String(Boolean(problem.textContent));
    if (problem.textContent) {
      input.focus();
      return;
    }
    token = typed;
    keep(typed);
    dialog.close("accepted");
  }

  document.body.append(dialog);
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "accepted");
    });
  });
}

/** Why the server does not accept a token, in words; empty if it does. */
async function refusal(typed) {
  if (!/^[!-~]+$/.test(typed)) return "This token is wrong: tokens have no spaces or accents.";
  try {
    const headers = { Authorization: `Bearer ${typed}` };
    const { status } = await fetch("api/images.json?limit=1", { method: "HEAD", headers });
    return status === 401 ? "This token is wrong." : "";
  } catch {
    return "The server does not answer.";
  }
}

/** The token in an address or the part of one after the path; null if there is none. */
function fromAddress(text) {
  const found = /[?&]token=([^&#\s]*)/.exec(text);
  return found ? new URLSearchParams(`token=${found[1]}`).get("token") : null;
}

/** The token that was typed in this tab before; some frames may keep nothing. */
function kept() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Keep a token for this tab, and never in the address: a wrong one that is there is removed. */
function keep(typed) {
  try {
    sessionStorage.setItem(KEY, typed);
  } catch {
    // The token is asked for again when the page is loaded anew.
  }
  const query = new URLSearchParams(location.search);
  if (!query.has("token")) return;
  query.delete("token");
  const rest = query.size ? `?${query}` : "";
  history.replaceState(history.state, "", location.pathname + rest + location.hash);
}
