// Makes at once what works without it too: forms answer while they are filled, marks and settings are kept without a new page.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const csrf = document.querySelector('meta[name="csrf"]').content;
  const LONGEST = 6000; // characters of a query, beyond which a form is sent
  const LARGEST = 8e6; // bytes of a file that is pasted into its field

  const say = (text) => { document.getElementById("said").textContent = text; };
  const post = (address, body, accept = "text/html") => fetch(address, { method: "POST", body, headers: { "X-CSRF-Token": csrf, Accept: accept }, redirect: "manual" });
  const soon = (wait, work) => { let timer; return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), wait); }; };

  // numbers as people write them
  const SUFFIXES = [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]];
  const human = (value, whole) => {
    if (whole) value = Math.round(value);
    for (const [suffix, size] of SUFFIXES) if (Math.abs(value) >= size && Math.abs(value) >= 1e4 && Math.abs(value) < 1e3 * size) return Number((value / size).toPrecision(4)) + suffix;
    return whole && Math.abs(value) < 1e15 ? String(value) : String(Number(value.toPrecision(4)));
  };
  const number = (text) => {
    const match = /^\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(Ki|Mi|Gi|Ti|[kKMBGT%])?/i.exec(text);
    if (!match) return NaN;
    const worth = { "%": 0.01, k: 1e3, K: 1e3, M: 1e6, G: 1e9, B: 1e9, T: 1e12, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 };
    return Number(match[1].replace(/_/g, "")) * (match[2] ? worth[match[2]] || 1 : 1);
  };

  // sliders beside the fields of numbers
  const place = (slider, value) => {
    const low = Number(slider.dataset.low), high = Number(slider.dataset.high), log = "log" in slider.dataset;
    const share = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return Math.round(Math.min(Math.max(share, 0), 1) * Number(slider.max));
  };
  const value = (slider) => {
    const low = Number(slider.dataset.low), high = Number(slider.dataset.high), share = Number(slider.value) / Number(slider.max);
    return "log" in slider.dataset ? low * (high / low) ** share : low + share * (high - low);
  };
  const follow = (slider) => {
    const field = document.getElementById(slider.dataset.for), given = number(field.value);
    if (Number.isFinite(given) && !("log" in slider.dataset && given <= 0)) slider.value = place(slider, given);
    slider.setAttribute("aria-valuetext", field.value || "not given");
  };
  for (const slider of document.querySelectorAll(".slider")) {
    slider.hidden = false;
    const field = document.getElementById(slider.dataset.for);
    follow(slider);
    slider.addEventListener("input", () => {
      field.value = human(value(slider), "whole" in slider.dataset);
      slider.setAttribute("aria-valuetext", field.value);
    });
    field.addEventListener("input", () => follow(slider));
  }

  // live forms
  const query = (form) => {
    const given = new URLSearchParams();
    for (const [name, text] of new FormData(form)) if (typeof text === "string" && text.trim() !== "") given.append(name, text);
    if (!given.get("_by")) { given.delete("_by"); given.delete("_values"); }
    if (!given.get("_x")) for (const name of ["_low", "_high", "_points"]) given.delete(name);
    if (!given.get("_solve") || !given.get("_target")) { given.delete("_solve"); given.delete("_target"); }
    return given;
  };
  const finish = (answer) => { for (const button of answer.querySelectorAll("[data-copy]")) button.hidden = false; };
  const running = new WeakMap(), page = crypto.getRandomValues(new Uint32Array(3)).join("-"); // new questions of a page give up its old ones
  const update = async (form, named) => {
    const answer = form.parentElement.querySelector(".answer");
    running.get(form)?.abort();
    const control = new AbortController();
    running.set(form, control);
    const given = query(form), text = given.toString(), long = text.length > LONGEST;
    answer.setAttribute("aria-busy", "true");
    try {
      const response = long
        ? await fetch(form.dataset.live, { method: "POST", body: given, headers: { "X-CSRF-Token": csrf, "X-Page": page }, signal: control.signal })
        : await fetch(form.dataset.live + "?" + text + (named ? "" : "&_auto=1"), { headers: { "X-Page": page }, signal: control.signal });
      if (response.status === 204) return;
      const html = await response.text();
      const open = new Set([...answer.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
      answer.innerHTML = html;
      for (const summary of answer.querySelectorAll("details > summary")) if (open.has(summary.textContent)) summary.parentElement.open = true;
      finish(answer);
      const value = answer.querySelector("output, .values tbody tr");
      if (named && value) say(form.closest("section").querySelector("h2").firstChild.textContent.trim() + ": " + value.textContent.trim().replace(/\s+/g, " "));
      if (named && !long) history.replaceState(null, "", form.action.split("#")[0].split("?")[0] + "?" + text + "#" + form.closest("section").id);
    } catch (error) {
      if (error.name === "AbortError") return;
      answer.innerHTML = '<p class="problem" role="alert">The server does not answer; is it still running?</p>';
    }
    answer.removeAttribute("aria-busy");
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); update(entry.target, false); }
  }, { rootMargin: "400px" });
  for (const form of document.querySelectorAll("form.live")) {
    const later = soon(180, () => update(form, true));
    form.addEventListener("input", (event) => {
      if (event.target.type === "file") return;
      if (event.target.classList.contains("axis")) {
        const chosen = event.target.selectedOptions[0].dataset;
        form.elements._low.value = chosen.low || "";
        form.elements._high.value = chosen.high || "";
      }
      later();
    });
    form.addEventListener("submit", (event) => {
      if (event.submitter?.name === "csrf") return;
      event.preventDefault();
      update(form, true);
    });
    form.addEventListener("change", async (event) => {
      if (event.target.type !== "file" || !event.target.files.length) return;
      const file = event.target.files[0];
      if (file.size > LARGEST) { say("The file is too large to be shown in its field: send it with the button for files."); return; }
      form.elements[event.target.name.replace(/\.file$/, "")].value = await file.text();
      event.target.value = "";
      update(form, true);
    });
    if ("answered" in form.dataset) finish(form.parentElement); else seen.observe(form);
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.closest(".copy").querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
      const before = button.firstChild.textContent;
      button.firstChild.textContent = "Copied";
      setTimeout(() => { button.firstChild.textContent = before; }, 1500);
    } catch {
      getSelection().selectAllChildren(button.closest(".copy").querySelector("pre"));
      say("The text is selected: copy it with the keyboard.");
    }
  });

  // search and filters of the catalogue
  const filters = document.getElementById("filters");
  if (filters) {
    let control = null;
    const words = document.getElementById("words"), head = document.getElementById("q"), papers = document.getElementById("papers");
    const show = async () => {
      control?.abort();
      control = new AbortController();
      const given = new URLSearchParams();
      for (const [name, text] of new FormData(filters)) if (text.trim() !== "") given.append(name, text.trim());
      const address = filters.action.split("?")[0];
      history.replaceState(null, "", address + (given.size ? "?" + given : ""));
      given.append("part", "papers");
      try {
        const response = await fetch(address + "?" + given, { signal: control.signal });
        papers.innerHTML = await response.text();
      } catch (error) {
        if (error.name !== "AbortError") say("The server does not answer; is it still running?");
      }
    };
    const later = soon(60, show);
    filters.addEventListener("input", () => { head.value = words.value; later(); });
    filters.addEventListener("submit", (event) => { event.preventDefault(); show(); });
    head.addEventListener("input", () => { words.value = head.value; later(); });
    head.form.addEventListener("submit", (event) => { event.preventDefault(); words.value = head.value; show(); });
  }

  // marks, layout and colours
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.classList.contains("mark")) {
      event.preventDefault();
      const button = form.querySelector("button"), body = new URLSearchParams(new FormData(form));
      body.set("mark", button.value);
      const response = await post(form.getAttribute("action"), body, "application/json");
      if (!response.ok) { say("That could not be kept: load the page again."); return; }
      const kept = await response.json();
      button.setAttribute("aria-pressed", String(kept.on));
      const count = button.querySelector(".count");
      if (count) count.textContent = kept.likes || "";
      say(kept.on ? "Kept." : "Taken back.");
    } else if (form.classList.contains("layout")) {
      event.preventDefault();
      const chosen = event.submitter.value;
      for (const button of form.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === chosen));
      const papers = document.querySelector(".papers");
      papers.classList.remove("cards", "list");
      papers.classList.add(chosen);
      post("/settings", new URLSearchParams({ layout: chosen }));
    }
  });
  const theme = document.getElementById("theme");
  theme.addEventListener("change", () => {
    if (theme.value === "auto") delete root.dataset.theme; else root.dataset.theme = theme.value;
    post("/settings", new URLSearchParams({ theme: theme.value }));
  });
})();
