// Live progress of one job: asks for new remarks once a second, and shows the page again when the job has ended.
"use strict";
(() => {
  const job = document.getElementById("job");
  const show = (id, text) => { const at = document.getElementById(id); if (at && at.textContent !== text) at.textContent = text; };
  let last = Number(job.dataset.last), failures = 0;
  const look = async () => {
    try {
      const response = await fetch(`${job.dataset.events}?after=${last}`, { credentials: "same-origin" });
      if (!response.ok) throw new Error(response.status);
      const { job: now, events } = await response.json();
      failures = 0;
      for (const event of events) {
        last = event.number;
        const line = document.createElement("li"), time = document.createElement("time");
        time.textContent = new Date(1000 * event.at).toTimeString().slice(0, 8);
        line.append(time, ` ${event.text ?? ""}${event.total ? ` (${event.done ?? 0} of ${event.total})` : ""}`);
        document.getElementById("job-remarks").append(line);
      }
      if (!["queued", "running"].includes(now.state)) { location.reload(); return; }
      const state = document.getElementById("job-state");
      if (state.textContent !== now.state) { state.textContent = now.state; state.className = `job-state job-${now.state}`; }
      if (events.length) show("job-said", events.at(-1).text ?? "");
      // what passes is shown, and not read out
      show("job-now", now.text && now.text !== document.getElementById("job-said").textContent ? now.text : "");
      const bar = document.getElementById("job-progress");
      if (now.total) { bar.max = now.total; bar.value = now.done ?? 0; } else bar.removeAttribute("value");
      show("job-done", now.done == null ? "" : now.total ? `${now.done} of ${now.total}` : `${now.done}`);
      if (now.begun) show("job-lasted", `${Math.max(0, Date.now() / 1000 - now.begun).toFixed(0)} s`);
    } catch (error) {
      failures += 1;
      if (failures === 3) show("job-said", "The server does not answer; this page goes on asking.");
    }
    setTimeout(look, failures ? 3000 : 1000);
  };
  setTimeout(look, 300);
})();
