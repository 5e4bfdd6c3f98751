"use strict";
// Whatever comes from the board is text: it is put into the page by textContent, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const KEPT = 120;
  const plots = { latency: [], rate: [], temperature: [] };
  const picture = $("picture");
  let state = "connecting";
  let spokenLabel = null;
  let spokenAt = 0;
  let drawn = false;

  // The token has become a cookie; it must not stay in the address, nor in the history.
  if (location.search) history.replaceState(null, "", location.pathname);

  const text = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };
  const milliseconds = (ns) => ns == null ? "–" : ns / 1e6 < 10 ? (ns / 1e6).toFixed(1) : (ns / 1e6).toFixed(0);
  const percent = (ratio) => `${(100 * ratio).toFixed(0)} %`;
  const count = (n) => Number(n).toLocaleString("en");

  function node(kind, className, content) {
    const made = document.createElement(kind);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    return made;
  }

  // --- the answer ---

  function showFrame(frame) {
    const unsure = frame.label === null;
    const label = unsure ? "unsure" : frame.label;
    text("label-text", label);
    $("label").dataset.sure = unsure ? "no" : "yes";
    const length = [...label].length;
    $("label").dataset.length = length > 24 ? "long" : length > 9 ? "middle" : "short";
    text("score", unsure ? `${percent(frame.score)} at best` : percent(frame.score));
    showTop(frame.top);
    push("latency", frame.latency_ns / 1e6);
    announce(unsure ? "unsure" : label);
  }

  function showTop(top) {
    const list = $("top");
    while (list.children.length < top.length) {
      const row = node("li");
      const track = node("span", "track");
      track.append(node("span", "fill"));
      row.append(node("bdi"), node("span", "share"), track);
      list.append(row);
    }
    while (list.children.length > top.length) list.lastChild.remove();
    top.forEach(([name, score], index) => {
      const [label, share, track] = list.children[index].children;
      if (label.textContent !== name) { label.textContent = name; label.title = name; }
      share.textContent = percent(score);
      track.firstChild.style.transform = `scaleX(${Math.max(0, Math.min(1, score))})`;
    });
  }

  // A screen reader hears a new label, and not more than one in two seconds.
  function announce(label) {
    const now = Date.now();
    if (label === spokenLabel || now - spokenAt < 2000) return;
    spokenLabel = label; spokenAt = now;
    text("announcer", label);
  }

  // --- the figures ---

  function showFigures(figures) {
    text("latency", milliseconds(figures.latency_p50_ns));
    text("latency-more", `p90 ${milliseconds(figures.latency_p90_ns)} ms`);
    text("rate", figures.rate_hz == null ? "–" : figures.rate_hz.toFixed(1));
    text("rate-more", `${count(figures.classified)} frames, ${count(figures.dropped)} dropped`);
    push("rate", state === "running" ? figures.rate_hz : 0);
    const celsius = figures.temperature_celsius;
    text("temperature", celsius == null ? "–" : celsius.toFixed(0));
    $("celsius").hidden = celsius == null;
    push("temperature", celsius);
    text("throttled", figures.throttled === null ? (celsius == null ? "no sensor here" : "throttling is not told here")
      : figures.throttled || "not throttled");
    $("throttled").style.color = figures.throttled ? "var(--bad)" : "";
    showStages(figures.stages_ns);
    $("latency-plot").setAttribute("aria-label", `Latency of the last minute, now ${$("latency").textContent} milliseconds`);
    $("rate-plot").setAttribute("aria-label", `Rate of the last minute, now ${$("rate").textContent} hertz`);
    $("temperature-plot").setAttribute("aria-label", `Temperature, now ${$("temperature").textContent} degrees`);
    draw();
  }

  function showStages(stages) {
    const most = Math.max(1, ...Object.values(stages).map((ns) => ns || 0));
    const rows = Object.entries(stages).flatMap(([name, ns]) => {
      const track = node("span", "track");
      const fill = node("span", "fill");
      fill.style.transform = `scaleX(${(ns || 0) / most})`;
      track.append(fill);
      const bar = node("dd"); bar.append(track);
      return [node("dt", "", name), bar, node("dd", "", `${milliseconds(ns)} ms`)];
    });
    $("stages").replaceChildren(...rows);
  }

  function push(name, value) {
    plots[name].push(value == null ? null : value);
    if (plots[name].length > (name === "latency" ? 5 * KEPT : KEPT / 2)) plots[name].shift();
    drawn = false;
  }

  function draw() {
    if (drawn || document.hidden) return;
    drawn = true;
    for (const name of Object.keys(plots)) drawPlot($(`${name}-plot`), plots[name], name === "temperature" ? 20 : 0);
  }

  function drawPlot(canvas, values, floor) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(0, height - .5); pen.lineTo(width, height - .5); pen.stroke();
    const known = values.filter((value) => value !== null);
    if (known.length < 2) return;
    const sorted = [...known].sort((a, b) => a - b);
    // One odd value must not press the rest flat: it is cut at the upper edge.
    const top = Math.max(sorted[Math.floor(.98 * (sorted.length - 1))] * 1.15, floor + 1e-6);
    const step = width / Math.max(1, values.length - 1);
    const y = (value) => height - 2 - Math.min(1, Math.max(0, (value - floor) / (top - floor))) * (height - 6);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 1.75; pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    values.forEach((value, index) => {
      if (value === null) { down = false; return; }
      if (down) pen.lineTo(index * step, y(value)); else pen.moveTo(index * step, y(value));
      down = true;
    });
    pen.stroke();
  }

  // --- the model ---

  function showCard(card) {
    const rows = card.map(([name, value]) => {
      const row = node("div");
      const says = node("dd"); says.append(node("bdi", "", value));
      row.append(node("dt", "", name), says);
      return row;
    });
    $("card").replaceChildren(...rows);
  }

  // --- the state ---

  const STATES = { running: "live", paused: "paused", measuring: "measuring", reconnecting: "camera away", ended: "ended",
    away: "no connection", connecting: "connecting" };
  const VEILS = { measuring: "measuring: the camera comes back when the benchmark is done",
    reconnecting: "the camera does not answer; it is tried again", ended: "the camera has ended",
    away: "no connection to the board; it is tried again" };

  function showState(next, reason) {
    if (state === "away" && next !== "away") reloadPicture();
    state = next;
    $("state").dataset.state = next;
    text("state-text", STATES[next] || next);
    const veil = VEILS[next];
    $("veil").hidden = !veil;
    if (veil) text("veil", next === "running" || !reason ? veil : `${veil} (${reason})`);
    text("pause-text", next === "paused" ? "Go on" : "Pause");
    $("pause").setAttribute("aria-pressed", String(next === "paused"));
    $("pause").disabled = !["running", "paused"].includes(next);
    $("save").disabled = ["ended", "away", "connecting"].includes(next);
    document.title = `${STATES[next] || next} – liteship camera`;
  }

  function showNotice(message) {
    $("notice").hidden = !message;
    text("notice", message || "");
  }

  let saidTimer = 0;
  function say(message, isBad) {
    text("said", message);
    $("said").dataset.bad = isBad ? "yes" : "no";
    clearTimeout(saidTimer);
    saidTimer = setTimeout(() => text("said", ""), isBad ? 15000 : 5000);
  }

  // --- the buttons ---

  async function press(button) {
    try {
      const answer = await fetch(button, { method: "POST" });
      const told = (answer.headers.get("Content-Type") || "").includes("json")
        ? await answer.json() : { error: (await answer.text()).trim() };
      if (!answer.ok) say(told.error || `status ${answer.status}`, true);
      else if (told.saved) say(`saved as ${told.saved}`, false);
    } catch {
      say("no connection to the board", true);
    }
  }

  const togglePause = () => { if (!$("pause").disabled) press(state === "paused" ? "resume" : "pause"); };
  const save = () => { if (!$("save").disabled) press("save"); };
  const help = () => { if ($("keys").open) $("keys").close(); else $("keys").showModal(); };
  const full = () => {
    const frame = picture.parentElement;
    if (document.fullscreenElement) document.exitFullscreen(); else if (frame.requestFullscreen) frame.requestFullscreen();
  };
  $("pause").addEventListener("click", togglePause);
  $("save").addEventListener("click", save);
  $("help").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target instanceof HTMLButtonElement || event.target instanceof HTMLAnchorElement;
    if (event.key === " " && !onButton && !$("keys").open) { event.preventDefault(); togglePause(); }
    else if (event.key === "s" && !$("keys").open) save();
    else if (event.key === "f" && !$("keys").open) full();
    else if (event.key === "?") help();
  });

  // --- the connection ---

  let pictureTimer = 0;
  function reloadPicture() {
    clearTimeout(pictureTimer);
    pictureTimer = setTimeout(() => { picture.src = `stream?${Date.now()}`; }, 200);
  }
  picture.addEventListener("error", () => { if (state !== "ended" && state !== "away") { clearTimeout(pictureTimer);
    pictureTimer = setTimeout(reloadPicture, 1000); } });

  function listen() {
    const events = new EventSource("events");
    const on = (kind, show) => events.addEventListener(kind, (event) => show(JSON.parse(event.data)));
    on("frame", showFrame);
    on("figures", showFigures);
    on("card", showCard);
    on("state", (told) => showState(told.state, told.reason));
    on("notice", (told) => showNotice(told.message));
    on("swapped", (told) => say(`now ${told.variant} of release ${told.release}`, false));
    on("saved", (told) => say(`saved as ${told.name}`, false));
    events.onerror = () => {
      if (state === "ended") { events.close(); return; }
      showState("away");
      // A browser gives up after an answer that is none, such as that of a forward without a board behind it.
      if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
    };
  }
  listen();
  setInterval(draw, 250);
  addEventListener("resize", () => { drawn = false; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawn = false; });
})();
