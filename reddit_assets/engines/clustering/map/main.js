// Pointer and keys, and the start.
const fingers = new Map();
let pressed = null, lassoing = false;
function lasso(on) {
  lassoing = on; path = null;
  $("lasso").setAttribute("aria-pressed", String(on));
  canvas.classList.toggle("draw", on);
  draw(false);
}
function viewed() {
  const left = edge(), { width, height } = V;
  select(inside([[left, 0], [width, 0], [width, height], [left, height]]));
}
function shade(on) {
  dark = on;
  document.documentElement.dataset.mode = dark ? "dark" : "light";
  $("mode").textContent = dark ? "Light" : "Dark";
  if (points) { points.colour(); fill(); draw(); }
}
function resize() {
  const ratio = devicePixelRatio || 1;
  V.width = innerWidth; V.height = innerHeight;
  canvas.width = V.width * ratio; canvas.height = V.height * ratio;
  canvas.style.width = V.width + "px"; canvas.style.height = V.height + "px";
  points.resize(V.width, V.height, ratio);
  if (!moved && picked < 0) all(); else draw();
}
const back = () => {
  if (path || lassoing) lasso(false);
  else if (chosen) drop();
  else if (shown >= 0) show(-1);
  else { picked = -1; pick(-1); }
};
const KEYS = {
  ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60),
  ArrowDown: () => pan(0, -60), "+": () => zoom(1.3, V.width / 2, V.height / 2),
  "=": () => KEYS["+"](), "-": () => zoom(1 / 1.3, V.width / 2, V.height / 2),
  0: () => { picked = -1; pick(-1); }, l: () => lasso(!lassoing), v: viewed,
  d: () => shade(!dark), "/": () => $("search").focus(), Escape: back,
};
function listen() {
  canvas.addEventListener("pointerdown", e => {
    pressed = fingers.size ? null : [e.clientX, e.clientY];
    fingers.set(e.pointerId, [e.clientX, e.clientY]); canvas.setPointerCapture(e.pointerId);
    if (lassoing && pressed) path = [pressed]; else canvas.classList.add("drag");
    hover(-1);
  });
  const lift = e => { fingers.delete(e.pointerId); if (!fingers.size) canvas.classList.remove("drag"); };
  canvas.addEventListener("pointerup", e => {
    lift(e);
    const drawn = path, still = pressed && Math.hypot(e.clientX - pressed[0], e.clientY - pressed[1]) < 6;
    pressed = null;
    if (drawn) {
      lasso(false);
      if (drawn.length > 2) select(inside(drawn));
    } else if (still) show(nearest(e.clientX, e.clientY));
  });
  canvas.addEventListener("pointercancel", e => { lift(e); path = null; });
  canvas.addEventListener("pointermove", e => {
    const was = fingers.get(e.pointerId);
    if (was && path) { path.push([e.clientX, e.clientY]); draw(false); return; }
    if (was) {
      const others = [...fingers].filter(([id]) => id !== e.pointerId);
      if (others.length) {
        const [ox, oy] = others[0][1], far = (x, y) => Math.hypot(x - ox, y - oy) || 1;
        zoom(far(e.clientX, e.clientY) / far(was[0], was[1]), ox, oy);
      } else pan(e.clientX - was[0], e.clientY - was[1]);
      fingers.set(e.pointerId, [e.clientX, e.clientY]);
      return;
    }
    const i = nearest(e.clientX, e.clientY);
    if (i !== hovered) { hovered = i; draw(false); }
    if (e.pointerType !== "touch") hover(i, e.clientX, e.clientY);
  });
  canvas.addEventListener("pointerleave", () => { hovered = -1; hover(-1); draw(false); });
  canvas.addEventListener("wheel", e => {
    e.preventDefault(); zoom(Math.exp(-e.deltaY * (e.deltaMode ? .05 : .0016)), e.clientX, e.clientY);
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { picked = -1; pick(-1); });
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.target.id === "search") {
      if (e.key === "Escape") { e.target.value = ""; search(""); canvas.focus(); }
      return;
    }
    if (e.target.type === "range" && e.key !== "Escape") return;
    if (e.key === "Enter" && e.target === canvas)
      return show(nearest((V.width + edge()) / 2, V.height / 2, Math.max(V.width, V.height) / 4));
    const act = KEYS[e.key] ?? KEYS[e.key.toLowerCase()];
    if (act) { act(); e.preventDefault(); }
  });
  $("search").addEventListener("input", e => search(e.target.value));
  $("close").addEventListener("click", () => show(-1));
  $("drop").addEventListener("click", drop);
  $("export").addEventListener("click", save);
  $("fold").addEventListener("click", e =>
    e.target.setAttribute("aria-expanded", String(!side.classList.toggle("folded"))));
  for (const [id, key] of [["nearer", "+"], ["farther", "-"], ["whole", "0"], ["lasso", "l"], ["view", "v"], ["mode", "d"]])
    $(id).addEventListener("click", KEYS[key]);
  addEventListener("resize", resize);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", e => shade(e.matches));
}
function named() {
  $("name").textContent = D.name; $("facts").textContent = D.facts;
  $("search").placeholder = `Search ${D.noun}`;
  $("search").setAttribute("aria-label", `Search ${D.noun}`);
  canvas.setAttribute("aria-label", `Map of ${many(N)} ${D.noun} of ${D.name}`);
  $("card").setAttribute("aria-label", D.title);
}
async function start() {
  shade(dark); named();
  if (!window.DecompressionStream || !window.OffscreenCanvas) {
    notice("This browser is too old for the map: it needs Chrome 80, Firefox 113 or Safari 16.4.");
    return;
  }
  [X, Y, C, SCORE, DAY] = await Promise.all([D.x, D.y, D.cluster, D.scores, D.days].map(column));
  points = new Points($("points"));
  if (!points.gl) {
    const drawn = N > PLAIN_POINTS ? `, so ${many(PLAIN_POINTS)} of ${many(N)} ${D.noun} are drawn` : "";
    notice(`This browser has no WebGL2${drawn}. The list and the search hold all.`);
  }
  resize(); points.measure(V, radius()); draw();
  index(); listen(); filters(); fill();
  const wanted = decodeURIComponent(location.hash.slice(1)), [, id] = wanted.match(/^cluster=(-?\d+)$/) ?? [];
  const k = D.clusters.findIndex(c => c.id === Number(id));
  if (id !== undefined && k >= 0) pick(k);
  else if (id === undefined && wanted) { $("search").value = wanted; search(wanted); }
  document.documentElement.dataset.ready = Math.round(performance.now());
}
start().catch(error => notice(`The map cannot be shown: ${error.message}`));
