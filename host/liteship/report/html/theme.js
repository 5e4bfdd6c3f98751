(function () {
  "use strict";
  var kept = null;
  try { kept = localStorage.getItem("liteship-theme"); } catch (_) { kept = null; }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  document.documentElement.classList.add("scripted");
})();
