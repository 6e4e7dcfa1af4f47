// Shows a password on request, and says while a new one is typed how much of its length is missing.
// Without this script passwords stay masked, and their length is checked when the form is sent.
"use strict";

function addShowButton(field) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-show";
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-controls", field.id);
  const of = document.createElement("span");
  of.className = "visually-hidden";
  of.textContent = " " + field.labels[0].textContent.toLowerCase();
  button.append("Show", of);

  const show = (shown) => {
    field.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", String(shown));
  };
  button.addEventListener("click", () => show(field.type === "password"));
  // Browsers keep what was typed into a text field, and password managers look for a masked one.
  field.form.addEventListener("submit", () => show(false));
  window.addEventListener("pagehide", () => show(false));
  // Shown text must not be sent to a spelling service, or changed by a phone's keyboard.
  field.spellcheck = false;
  field.autocapitalize = "none";

  field.after(button); // the field stays in its place, because a field that is moved loses the focus
}

function addLengthHint(field, least) {
  const hint = document.createElement("div");
  hint.className = "hint";
  hint.setAttribute("aria-live", "polite");
  field.closest(".field").append(hint);

  const tell = () => {
    const length = [...field.value.normalize("NFC")].length; // as the server counts
    const missing = least - length;
    hint.classList.toggle("is-enough", missing <= 0);
    if (length === 0) hint.textContent = "";
    else if (missing > 0) hint.textContent = `${missing} more ${missing === 1 ? "character" : "characters"}`;
    else hint.textContent = "Long enough. Whether it is easy to guess is checked when you send it.";
  };
  let pause;
  field.addEventListener("input", () => {
    clearTimeout(pause); // a screen reader would read out every key
    pause = setTimeout(tell, 400);
  });
}

for (const field of document.querySelectorAll("input[type=password]")) {
  if (!field.form || field.labels.length === 0) continue; // in a template of the app
  addShowButton(field);
  if (field.dataset.minLength) addLengthHint(field, Number(field.dataset.minLength));
}
