(function () {
  "use strict";
  var root = document.documentElement;
  var kept = null;
  try { kept = localStorage.getItem("liteship-theme"); } catch (_) { kept = null; }
  root.classList.add("scripted");
  if (kept !== "light" && kept !== "dark") return;
  root.dataset.theme = kept;
  root.style.colorScheme = kept;
})();
