(function () {
  "use strict";
  var root = document.documentElement;
  var themes = JSON.parse(document.getElementById("themes").textContent);
  var specs = JSON.parse(document.getElementById("specs").textContent);
  var darkWished = window.matchMedia("(prefers-color-scheme: dark)");
  var narrowPixels = 560;
  var pixelsPerTick = 80;

  // Theme: the reader's choice, else the system's.
  function theme() { return root.dataset.theme || (darkWished.matches ? "dark" : "light"); }
  var themeButton = document.getElementById("theme");
  function nameTheme() { themeButton.textContent = theme() === "dark" ? "Light theme" : "Dark theme"; }
  themeButton.addEventListener("click", function () {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    root.style.colorScheme = root.dataset.theme;
    try { localStorage.setItem("liteship-theme", root.dataset.theme); } catch (_) { /* not remembered then */ }
    nameTheme();
    drawAgain();
  });
  darkWished.addEventListener("change", function () { nameTheme(); drawAgain(); });
  nameTheme();

  // Charts: drawn when they come near the window, again when theme or width change.
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var drawn = new Map();
  var dataKeys = { data: true, datasets: true, values: true };

  function colored(spec, colors) {
    if (typeof spec === "string") return spec[0] === "@" && colors[spec.slice(1)] || spec;
    if (Array.isArray(spec)) return spec.map(function (item) { return colored(item, colors); });
    if (!spec || typeof spec !== "object") return spec;
    var copy = {};
    Object.keys(spec).forEach(function (key) {
      copy[key] = dataKeys[key] ? spec[key] : colored(spec[key], colors);
    });
    return copy;
  }

  function configured(width, added) {
    var config = JSON.parse(JSON.stringify(themes[theme()].config));
    config.axisX.tickCount = Math.ceil(width / pixelsPerTick);
    if (width < narrowPixels) {
      config.legend.columns = 2;
      config.legend.labelLimit = Math.floor(width / 2) - 40;
      config.legend.layout = { top: { direction: "vertical" } };
      config.axisX.titleLimit = Math.floor(width * 0.62);
      config.axisY.labelLimit = Math.floor(width * 0.38);
      Object.keys(added).forEach(function (key) { config[key] = Object.assign(config[key] || {}, added[key]); });
    }
    return config;
  }

  // What a phone is drawn takes the place of parts of the specification.
  function specified(name, width) {
    var spec = specs[name];
    var narrow = width < narrowPixels && (spec.usermeta || {}).narrow;
    return narrow ? Object.assign({}, spec, narrow, { config: undefined }) : spec;
  }

  function draw(plot) {
    var meta = specs[plot.dataset.chart].usermeta || {};
    var width = Math.min(Math.floor(plot.clientWidth), meta.most_width || Infinity);
    if (!width) return;
    var state = theme() + width;
    if (drawn.get(plot) && drawn.get(plot).state === state) return;
    var before = drawn.get(plot);
    drawn.set(plot, { state: state, view: before && before.view });
    var spec = colored(specified(plot.dataset.chart, width), themes[theme()].colors);
    spec.width = width;
    spec.autosize = { type: "fit-x", contains: "padding" };
    spec.padding = 2;
    var options = {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, logLevel: 1,
      config: configured(width, (meta.narrow || {}).config || {}), tooltip: { theme: "custom" }
    };
    // eslint-disable-next-line no-undef
    vegaEmbed(plot, spec, options).then(function (result) {
      if (before && before.view) before.view.finalize();
      drawn.set(plot, { state: state, view: result });
      plot.querySelector("svg").setAttribute("aria-hidden", "true"); // its label says what it shows
      plot.dataset.drawn = theme();
    }, function (error) {
      plot.textContent = "This chart could not be drawn; its figures stand below.";
      plot.dataset.failed = String(error);
    });
  }

  function drawAgain() { plots.filter(function (plot) { return drawn.has(plot); }).forEach(draw); }

  var near = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) { if (entry.isIntersecting) draw(entry.target); });
  }, { rootMargin: "300px" });
  plots.forEach(function (plot) {
    var height = specified(plot.dataset.chart, plot.clientWidth || Infinity).height;
    if (height) plot.style.minHeight = height + 70 + "px";
    near.observe(plot);
  });
  var waiting;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(drawAgain, 150);
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details.fold").forEach(function (fold) { fold.open = true; });
    plots.forEach(draw);
  });

  // Table: sort by any column, up, down, and back to the order of the study.
  var table = document.getElementById("comparison");
  var body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows);
  var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);

  function order(row, column, kind) {
    var value = row.cells[column].dataset.order;
    if (value === undefined || value === "") return null;
    return kind === "number" ? Number(value) : value;
  }

  function compare(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));
  }

  heads.forEach(function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var next = { ascending: "descending", descending: "" };
      var now = head.getAttribute("aria-sort");
      var wished = now ? next[now] : "ascending";
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      if (wished) head.setAttribute("aria-sort", wished);
      var sign = wished === "descending" ? -1 : 1;
      var kind = head.dataset.kind;
      var sorted = rows.map(function (row, index) { return { row: row, key: order(row, column, kind), at: index }; });
      if (wished) {
        sorted.sort(function (one, other) { return compare(one.key, other.key, sign) || one.at - other.at; });
      }
      sorted.forEach(function (item) { body.appendChild(item.row); });
    });
  });

  // Table: filter by text and status.
  var filter = document.getElementById("filter");
  var shown = document.getElementById("shown");
  var choices = Array.prototype.slice.call(document.querySelectorAll("input[name=status]"));
  var texts = new Map(rows.map(function (row) { return [row, row.textContent.toLowerCase()]; }));

  function applyFilter() {
    var words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    var statuses = choices.filter(function (choice) { return choice.checked; }).map(function (choice) { return choice.value; });
    var left = 0;
    rows.forEach(function (row) {
      var own = row.dataset.statuses.split("|");
      var fits = (!choices.length || own.some(function (word) { return statuses.indexOf(word) >= 0; })) &&
        words.every(function (word) { return texts.get(row).indexOf(word) >= 0; });
      row.hidden = !fits;
      left += fits;
    });
    shown.textContent = left + " of " + rows.length + " rows";
    document.getElementById("nothing").hidden = left > 0;
    document.getElementById("rows").hidden = left === 0;
  }
  filter.addEventListener("input", applyFilter);
  choices.forEach(function (choice) { choice.addEventListener("change", applyFilter); });
  document.getElementById("clear").addEventListener("click", function () {
    filter.value = "";
    choices.forEach(function (choice) { choice.checked = true; });
    applyFilter();
    filter.focus();
  });

  // Commands.
  function copyBySelection(code) {
    var range = document.createRange();
    range.selectNodeContents(code);
    var selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }
  document.querySelectorAll(".copy").forEach(function (button) {
    button.addEventListener("click", function () {
      var code = button.parentElement.querySelector("code");
      var told = document.getElementById("copied");
      function done(worked) {
        button.textContent = worked ? "Copied" : "Selected";
        told.textContent = worked ? "The command was copied." : "The command is selected; copy it by hand.";
        setTimeout(function () { button.textContent = "Copy"; }, 2000);
      }
      if (!navigator.clipboard) { done(copyBySelection(code)); return; }
      navigator.clipboard.writeText(code.textContent).then(
        function () { done(true); }, function () { done(copyBySelection(code)); }
      );
    });
  });
})();
