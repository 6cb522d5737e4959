// How figures are written. Every function takes null for "not known".

export const NONE = "–";

const DIGITS = [0, 1, 2].map((digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
const THOUSANDS = ["", "k", "M", "G", "T", "P"];
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

const known = (write) => (value) => (value === null || value === undefined || Number.isNaN(value) ? NONE : write(value));

export const number = known((value) => {
  const size = Math.abs(value);
  if (size >= 100_000) {
    const power = Math.min(THOUSANDS.length - 1, Math.floor(Math.log10(size) / 3));
    return `${(value / 1000 ** power).toPrecision(4)} ${THOUSANDS[power]}`;
  }
  if (size && size < 0.01) return value.toPrecision(2);
  return DIGITS[Number.isInteger(value) || size >= 1000 ? 0 : size >= 100 ? 1 : 2].format(value);
});

export const count = known((value) => DIGITS[0].format(value));

export const perSecond = known((value) => `${number(Math.abs(value) >= 10 ? Math.round(value * 10) / 10 : value)}/s`);

export const percent = known((value) => `${DIGITS[Math.abs(value) < 10 ? 1 : 0].format(value)} %`);

export const milliseconds = known((value) => (value >= 1000 ? `${number(value / 1000)} s` : `${DIGITS[value < 10 ? 2 : value < 100 ? 1 : 0].format(value)} ms`));

export const bytes = known((value) => {
  let power = 0;
  while (Math.abs(value) >= 1024 && power < BYTES.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${DIGITS[power && Math.abs(value) < 100 ? 1 : 0].format(value)} ${BYTES[power]}`;
});

export const bytesPerSecond = known((value) => `${bytes(value)}/s`);

// A span of time, from seconds.
export const span = known((seconds) => {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
});

// A time of the day, from Unix ms; with the ms where messages are told apart by them.
export const clock = known((ms) => TIME.format(ms));
export const exactClock = (ms) => `${clock(ms)}.${String(Math.floor(ms % 1000)).padStart(3, "0")}`;

export const plural = (amount, word) => `${count(amount)} ${word}${amount === 1 ? "" : "s"}`;
