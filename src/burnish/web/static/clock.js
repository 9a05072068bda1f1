// Time at work: while the page is seen and somebody moves.

const AWAY_MS = 60000; // Without a key or a pointer for so long, nobody is working.

export function startClock() {
  let seconds = 0;
  let since = performance.now();
  let lastSign = since;
  let seen = document.visibilityState === "visible";

  function count() {
    const now = performance.now();
    const until = Math.min(now, lastSign + AWAY_MS);
    if (seen && until > since) seconds += (until - since) / 1000;
    since = now;
    seen = document.visibilityState === "visible";
  }

  for (const sign of ["keydown", "pointermove", "pointerdown", "wheel", "touchstart"]) {
    addEventListener(sign, () => { count(); lastSign = performance.now(); }, { passive: true });
  }
  document.addEventListener("visibilitychange", count);
  return {
    seconds() { count(); return Math.round(seconds * 10) / 10; },
    goOnFrom(earlier) { seconds += earlier; },
  };
}
