/** The access token of the server: from the address, from the session storage or from the user. */

import { button, make, mutedLine } from "./dom.js";

// The path is part of the key: a proxy may serve several viewers from one origin.
const STORAGE_KEY = `actgrid-token ${location.pathname}`;
const EXPLANATION = "This server requires a token. The token is printed where the server was "
  + "started, in the address of the page after “?token=”.";

let token = parseToken(location.search) ?? loadToken();
/** @type {Promise<boolean> | null} */
let pendingForm = null;

/**
 * Return the request headers that contain the token.
 * @returns {Record<string, string>}
 */
export const authorizationHeaders = () =>
  (token === null ? {} : { Authorization: `Bearer ${token}` });

/** Return the current token; null if there is none. */
export const currentToken = () => token;

/**
 * Ask the user for another token than a refused one; return whether the user entered a valid one.
 * All refused requests wait for the same form.
 * @param {string | null} refused
 */
export function requestToken(refused) {
  if (token !== refused) return Promise.resolve(true);
  pendingForm ??= showForm(refused).finally(() => { pendingForm = null; });
  return pendingForm;
}

/**
 * Show the form until a token is accepted, or until the user closes it.
 * @param {string | null} refused
 * @returns {Promise<boolean>}
 */
function showForm(refused) {
  const input = make("input", {
    type: "password", "aria-label": "Token", autocomplete: "off", spellcheck: "false",
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      submit();
    },
  });
  const error = make("p", { class: "error", role: "alert" },
    refused === null ? "" : "The token of this page is wrong.");
  const dialog = make("dialog", { class: "token", "aria-label": "Access" },
    make("h2", {}, "Token"), mutedLine(EXPLANATION),
    // The form is never submitted, because the policy of the page forbids it.
    make("form", { class: "tools" }, input,
      button("Open", { class: "strong", onclick: () => submit() })), error);

  async function submit() {
    const newToken = parseToken(input.value) ?? input.value.trim();
    if (!newToken) return;
    error.textContent = "";
    error.textContent = await checkToken(newToken);
    input.ariaInvalid = String(Boolean(error.textContent));
    if (error.textContent) {
      input.focus();
      return;
    }
    token = newToken;
    storeToken(newToken);
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

/**
 * Return the error message for a token that the server refuses; empty if it accepts the token.
 * @param {string} newToken
 */
async function checkToken(newToken) {
  if (!/^[!-~]+$/.test(newToken)) return "This token is wrong: tokens have no spaces or accents.";
  try {
    const headers = { Authorization: `Bearer ${newToken}` };
    const { status } = await fetch("api/images.json?limit=1", { method: "HEAD", headers });
    return status === 401 ? "This token is wrong." : "";
  } catch {
    return "The server does not answer.";
  }
}

/**
 * Return the token in an address or in its query; null if there is none.
 * @param {string} text
 */
function parseToken(text) {
  const match = /[?&]token=([^&#\s]*)/.exec(text);
  return match ? new URLSearchParams(`token=${match[1]}`).get("token") : null;
}

/** Return the stored token of this tab; null if there is none or storage is denied. */
function loadToken() {
  try {
    return sessionStorage.getItem(STORAGE_KEY);
  } catch {
    return null;
  }
}

/**
 * Store a token for this tab, and remove the refused token from the address.
 * @param {string} newToken
 */
function storeToken(newToken) {
  try {
    sessionStorage.setItem(STORAGE_KEY, newToken);
  } catch {
    // Storage is denied: the page asks for the token again after a reload.
  }
  const query = new URLSearchParams(location.search);
  if (!query.has("token")) return;
  query.delete("token");
  const rest = query.size ? `?${query}` : "";
  history.replaceState(history.state, "", location.pathname + rest + location.hash);
}
