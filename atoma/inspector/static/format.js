// Numbers for people.

/** Microseconds as µs, ms or s with about three digits. */
export function micros(value) {
  if (value === null || value === undefined) return "–";
  if (value < 100) return `${Number(value.toFixed(1))} µs`;
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1e6) return `${Number((value / 1000).toPrecision(3))} ms`;
  return `${Number((value / 1e6).toPrecision(3))} s`;
}

export function bytes(value) {
  if (value < 1024) return `${value} B`;
  if (value < 1024 ** 2) return `${Math.round(value / 1024)} KiB`;
  return `${(value / 1024 ** 2).toFixed(1)} MiB`;
}

/** A span of seconds, roughly. */
export function span(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** Wall-clock milliseconds as hh:mm:ss. */
export const clock = (ms) => new Date(ms).toTimeString().slice(0, 8);

/** Wall-clock milliseconds as day and hh:mm. */
export const moment = (ms) => new Date(ms).toLocaleString("en", {day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false});

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
