// Shows times in the time zone of the visitor. Without this script pages show them in UTC.
"use strict";

for (const time of document.querySelectorAll("time[datetime]")) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) continue;
  const shape = {
    day: "numeric", month: "short", year: "numeric",
    hour: "2-digit", minute: "2-digit", hourCycle: "h23",
  };
  if ("seconds" in time.dataset) shape.second = "2-digit";
  time.title = time.textContent;
  time.textContent = new Intl.DateTimeFormat("en-GB", shape).format(at);
}
