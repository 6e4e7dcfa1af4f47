// Makes and uses passkeys: a form that is marked with `data-passkey` gets what the authenticator
// answers into its field `credential`, and is then sent like any form. Without this script, or in a
// browser without passkeys, such forms stay hidden.
"use strict";

(() => {
  const RENEW_AFTER = 4 * 60_000; // ms; a challenge counts for five minutes
  let waiting = null; // the request of the autofill, which another request must end first

  const toBytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));

  function toText(buffer) {
    const characters = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte));
    return btoa(characters.join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  const withBytes = (list) => list.map((found) => ({ ...found, id: toBytes(found.id) }));

  function creationOptions(json) {
    if (PublicKeyCredential.parseCreationOptionsFromJSON) {
      return PublicKeyCredential.parseCreationOptionsFromJSON(json);
    }
    return {
      ...json,
      challenge: toBytes(json.challenge),
      user: { ...json.user, id: toBytes(json.user.id) },
      excludeCredentials: withBytes(json.excludeCredentials),
    };
  }

  function requestOptions(json) {
    if (PublicKeyCredential.parseRequestOptionsFromJSON) {
      return PublicKeyCredential.parseRequestOptionsFromJSON(json);
    }
    return {
      ...json,
      challenge: toBytes(json.challenge),
      allowCredentials: withBytes(json.allowCredentials),
    };
  }

  function toJson(credential) {
    try {
      return credential.toJSON();
    } catch {
      // an older browser, or an extension that took the browser's place
    }
    const { response } = credential;
    const read = { clientDataJSON: toText(response.clientDataJSON) };
    if (response.attestationObject) {
      read.attestationObject = toText(response.attestationObject);
      read.transports = response.getTransports ? response.getTransports() : [];
    } else {
      read.authenticatorData = toText(response.authenticatorData);
      read.signature = toText(response.signature);
      if (response.userHandle) read.userHandle = toText(response.userHandle);
    }
    return { id: credential.id, rawId: credential.id, type: credential.type, response: read };
  }

  // The form of a sign-up with a passkey stands beside that with a password, and has its fields.
  // Says whether they are filled in as they should be.
  function copyFields(form) {
    let isValid = true;
    for (const name of form.dataset.copies.split(" ")) {
      const typed = document.querySelector(`form:not([data-passkey]) [name="${name}"]`);
      form.elements.namedItem(name).value = typed.value;
      isValid = isValid && typed.checkValidity();
    }
    return isValid;
  }

  // The page that comes says what is wrong with the fields.
  function sendAsItIs(form) {
    form.submit();
    return new Promise(() => {});
  }

  async function ask(form, extra) {
    const copies = form.dataset.copies;
    if (copies && !copyFields(form)) return sendAsItIs(form);
    const answer = await fetch(form.dataset.options, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: copies ? new URLSearchParams(new FormData(form)) : undefined,
    });
    if (copies && answer.status === 400) return sendAsItIs(form);
    if (!answer.ok) throw new Error(`options: ${answer.status}`);
    const json = await answer.json();
    if (form.dataset.passkey === "create") {
      return navigator.credentials.create({ publicKey: creationOptions(json), ...extra });
    }
    return navigator.credentials.get({ publicKey: requestOptions(json), ...extra });
  }

  function send(form, credential) {
    form.elements.credential.value = JSON.stringify(toJson(credential));
    const remember = document.querySelector("input[type=checkbox][name=remember]");
    if (remember && form.elements.remember) {
      form.elements.remember.value = remember.checked ? "y" : "";
    }
    form.submit(); // which calls no listener
  }

  function reasonOf(error, form) {
    if (error.name === "InvalidStateError") return "This device has a passkey of yours already.";
    if (error.name === "NotAllowedError" || error.name === "AbortError") {
      return form.dataset.passkey === "create"
        ? "No passkey was made. Try again when you are ready."
        : "No passkey was used. Try again, or go on in another way.";
    }
    return "That did not work. Reload the page and try again.";
  }

  function stopWaiting() {
    if (waiting) waiting.abort();
    waiting = null;
  }

  async function onButton(event) {
    event.preventDefault();
    const form = event.target;
    const button = form.querySelector("[type=submit]");
    const problem = form.querySelector("[data-passkey-problem]");
    stopWaiting(); // browsers refuse a second request
    problem.hidden = true;
    button.disabled = true;
    try {
      send(form, await ask(form));
    } catch (error) {
      problem.textContent = reasonOf(error, form);
      problem.hidden = false;
      button.disabled = false;
      button.focus();
      offerInField(form);
    }
  }

  // Passkeys beside the passwords that the browser offers for the email (conditional mediation).
  async function offerInField(form) {
    if (!("autofill" in form.dataset) || waiting) return;
    const can = PublicKeyCredential.isConditionalMediationAvailable;
    if (!can || !(await can.call(PublicKeyCredential)) || waiting) return;
    const mine = new AbortController();
    waiting = mine;
    const renew = setTimeout(() => {
      if (waiting !== mine) return;
      stopWaiting();
      offerInField(form);
    }, RENEW_AFTER);
    try {
      const credential = await ask(form, { mediation: "conditional", signal: mine.signal });
      if (credential) send(form, credential);
    } catch {
      // ended by the button, by its renewal, or by the browser: the button is still there
    } finally {
      clearTimeout(renew);
      if (waiting === mine) waiting = null;
    }
  }

  // Tells the browser which passkeys are gone, so that it offers them no more.
  async function signal(element) {
    const { passkeyRp: rpId, passkeyUnknown: unknown, passkeyUser: userId } = element.dataset;
    try {
      if (unknown && PublicKeyCredential.signalUnknownCredential) {
        await PublicKeyCredential.signalUnknownCredential({ rpId, credentialId: unknown });
      }
      if (userId && PublicKeyCredential.signalAllAcceptedCredentials) {
        const allAcceptedCredentialIds = element.dataset.passkeyIds.split(" ").filter(Boolean);
        await PublicKeyCredential.signalAllAcceptedCredentials({
          rpId,
          userId,
          allAcceptedCredentialIds,
        });
      }
    } catch {
      // it is a courtesy
    }
  }

  // Browsers refuse passkeys of another host, such as those of `localhost` at 127.0.0.1.
  function isOn(rp) {
    return location.hostname === rp || location.hostname.endsWith(`.${rp}`);
  }

  if (!window.PublicKeyCredential || !navigator.credentials) return;
  for (const element of document.querySelectorAll("[data-passkey-rp]")) signal(element);
  for (const note of document.querySelectorAll("[data-passkey-elsewhere]")) {
    note.hidden = isOn(note.dataset.passkeyElsewhere);
  }
  const forms = [...document.querySelectorAll("form[data-passkey]")].filter((form) =>
    isOn(form.dataset.rp),
  );
  for (const form of forms) {
    form.hidden = false;
    form.addEventListener("submit", onButton);
    offerInField(form);
  }
  // a page that comes back by the back button has lost its request
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const form of forms) {
      form.querySelector("[type=submit]").disabled = false;
      offerInField(form);
    }
  });
})();
