/** The settings panel, and the question for the API key. Every change holds at once. */
import { button, byId, make } from "./dom.ts";
import { type ChatSettings, DEFAULT_SETTINGS, isInRange, type NumberSetting, SETTING_RANGES } from "./preferences.ts";
import type { Model } from "./stream.ts";

type Change = (change: Partial<ChatSettings>) => void;

interface NumberField {
  readonly name: NumberSetting;
  readonly label: string;
  readonly hint: string;
  /** Shown as a slider too, in steps of this. */
  readonly step?: number;
  /** What an empty field means. */
  readonly empty?: string;
}

const FIELDS: readonly NumberField[] = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the most probable token", step: 0.05 },
  { name: "topK", label: "Top-k", hint: "Choose among this many tokens; 0 = all", step: 1 },
  { name: "topP", label: "Top-p", hint: "Choose among the tokens that together reach this mass", step: 0.01 },
  { name: "maxTokens", label: "Longest answer", hint: "In tokens", empty: "as the server likes" },
  { name: "seed", label: "Seed", hint: "The same seed gives the same answer again", empty: "another one each time" },
];

/** Writes a model in one line. */
export function describeModel({ id, parameters, stage, completes }: Model): string {
  const size = parameters === undefined ? undefined : `${(parameters / 1e6).toFixed(parameters < 1e7 ? 1 : 0)} M`;
  const kind = completes ? "base, continues text" : stage;
  const facts = [size, kind].filter((each) => each !== undefined).join(", ");
  return facts === "" ? id : `${id} (${facts})`;
}

/** Shows the panel. */
export function openSettings(
  settings: ChatSettings,
  { models, modelId, change }: { models: readonly Model[]; modelId: string | undefined; change: Change },
): void {
  const sheet = byId<HTMLDialogElement>("settings");
  const close = () => sheet.close();
  const reset = () => {
    const { model, theme } = settings;
    change({ ...DEFAULT_SETTINGS, model, theme });
    openSettings({ ...DEFAULT_SETTINGS, model, theme }, { models, modelId, change });
  };
  const head = make("div", {
    class: "sheet-head",
    children: [
      make("h2", { text: "Settings", attributes: { id: "settings-title" } }),
      button("Close", { icon: "close", class: "icon", showsLabel: false, click: close }),
    ],
  });
  sheet.replaceChildren(
    head,
    modelField(models, { modelId, change }),
    systemField(settings, change),
    ...FIELDS.map((field) => numberField(field, { value: settings[field.name], change })),
    probabilityField(settings, change),
    themeField(settings, change),
    button("Reset to defaults", { class: "button", click: reset }),
  );
  sheet.onclick = (event) => {
    if (event.target === sheet) close(); // beside the panel
  };
  if (!sheet.open) sheet.showModal();
}

function field(label: string, { hint, control, id }: { hint?: string; control: Node[]; id: string }): HTMLElement {
  return make("div", {
    class: "field",
    children: [
      make("label", { text: label, attributes: { for: id } }),
      ...control,
      hint === undefined ? undefined : make("p", { class: "hint", text: hint, attributes: { id: `${id}-hint` } }),
    ],
  });
}

function modelField(
  models: readonly Model[],
  { modelId, change }: { modelId: string | undefined; change: Change },
): HTMLElement {
  const select = make("select", {
    attributes: { id: "set-model" },
    children: models.map((model) => make("option", { text: describeModel(model), attributes: { value: model.id } })),
  });
  select.value = modelId ?? "";
  select.addEventListener("change", () => change({ model: select.value }));
  return field("Model", { control: [select], id: "set-model" });
}

function systemField(settings: ChatSettings, change: Change): HTMLElement {
  const id = "set-system";
  const box = make("textarea", { attributes: { id, rows: "3", "aria-describedby": `${id}-hint` } });
  box.value = settings.systemPrompt;
  box.addEventListener("input", () => change({ systemPrompt: box.value }));
  return field("System prompt", { control: [box], id, hint: "Told to the model in front of every conversation" });
}

function numberField(
  { name, label, hint, step, empty }: NumberField,
  { value, change }: { value: number | null; change: Change },
): HTMLElement {
  const id = `set-${name}`;
  const { least, most, isWhole } = SETTING_RANGES[name];
  const limits = { min: String(least), max: String(most), step: isWhole ? "1" : "any", inputmode: "decimal" };
  const number = make("input", {
    attributes: { id, type: "number", ...limits, placeholder: empty ?? "", "aria-describedby": `${id}-hint` },
  });
  number.value = value === null ? "" : String(value);
  const slider = step === undefined ? undefined : make("input", {
    attributes: { type: "range", min: String(least), max: String(most), step: String(step), "aria-label": label },
  });
  if (slider !== undefined) slider.value = String(value);
  const set = (text: string) => {
    const isEmpty = text.trim() === "" && empty !== undefined && !number.validity.badInput;
    const isRight = isEmpty || (text.trim() !== "" && isInRange(name, Number(text)));
    number.setAttribute("aria-invalid", String(!isRight));
    byId(`${id}-hint`).textContent = isRight
      ? hint
      : `${isWhole ? "A whole number" : "A number"} from ${least} to ${most}, please`;
    if (isRight) change({ [name]: isEmpty ? null : Number(text) });
  };
  number.addEventListener("input", () => {
    set(number.value);
    if (slider !== undefined) slider.value = number.value;
  });
  slider?.addEventListener("input", () => {
    number.value = slider.value;
    set(slider.value);
  });
  const control = make("div", { class: slider ? "with-slider" : "", children: [slider, number] });
  return field(label, { control: [control], id, hint });
}

function probabilityField(settings: ChatSettings, change: Change): HTMLElement {
  const id = "set-probabilities";
  const box = make("input", { class: "switch", attributes: { id, type: "checkbox", role: "switch" } });
  box.checked = settings.withProbabilities;
  box.addEventListener("change", () => change({ withProbabilities: box.checked }));
  const hint = "New answers come as their tokens; point at one to see how sure the model was";
  const element = field("Token probabilities", { control: [box], id, hint });
  element.classList.add("with-switch");
  return element;
}

function themeField(settings: ChatSettings, change: Change): HTMLElement {
  const choices = (["system", "light", "dark"] as const).map((theme) => {
    const radio = make("input", { attributes: { type: "radio", name: "theme", value: theme, id: `theme-${theme}` } });
    radio.checked = settings.theme === theme;
    radio.addEventListener("change", () => change({ theme }));
    const label = theme[0].toUpperCase() + theme.slice(1);
    return [radio, make("label", { text: label, attributes: { for: radio.id } })];
  });
  return make("fieldset", {
    class: "field",
    children: [make("legend", { text: "Appearance" }), make("div", { class: "choices", children: choices.flat() })],
  });
}

/** Asks for the API key; undefined where the person would rather not say. */
export function askKey(wasWrong: boolean): Promise<string | undefined> {
  const card = byId<HTMLDialogElement>("key");
  const box = make("input", {
    attributes: { id: "key-box", type: "password", autocomplete: "off", "aria-label": "API key", required: "" },
  });
  const form = make("form", {
    attributes: { method: "dialog" },
    children: [
      make("h2", {
        text: wasWrong ? "That key is not right" : "This server asks for a key",
        attributes: { id: "key-title" },
      }),
      make("p", { text: "Whoever started the server knows it. This tab keeps it until it is closed." }),
      box,
      make("div", {
        class: "editor-actions",
        children: [
          button("Cancel", { click: () => card.close("") }),
          make("button", { class: "button main", text: "Continue", attributes: { type: "submit" } }),
        ],
      }),
    ],
  });
  card.replaceChildren(form);
  const answer = Promise.withResolvers<string | undefined>();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    card.close(box.value.trim());
  });
  card.returnValue = "";
  card.onclose = () => {
    answer.resolve(card.returnValue === "" ? undefined : card.returnValue);
    card.returnValue = "";
  };
  card.showModal();
  box.focus();
  return answer.promise;
}
