// Shows times in the time zone of the visitor. Without this script pages show them in UTC.
"use strict";

const parts = new Intl.DateTimeFormat("en-US", {
  day: "numeric", month: "short", year: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

for (const time of document.querySelectorAll("time[datetime]")) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) continue;
  const { day, month, year, hour, minute, second } = Object.fromEntries(
    parts.formatToParts(at).map(({ type, value }) => [type, value]),
  );
  const seconds = "seconds" in time.dataset ? `:${second}` : "";
  time.title = time.textContent;
  time.textContent = `${day} ${month} ${year}, ${hour}:${minute}${seconds}`;
}
