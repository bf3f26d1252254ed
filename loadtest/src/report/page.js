// Shows the values under the pointer, or where the arrow keys lead. Without it the page is whole, and its plots are still.
const { times, plots } = JSON.parse(document.getElementById('values').textContent);
const make = (kind, className, parent) => parent.appendChild(Object.assign(document.createElement(kind), { className }));
const clock = (time) => {
  const all = Math.round(time), pad = (part) => String(part).padStart(2, '0');
  const [hours, minutes, seconds] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(seconds)}` : `${minutes}:${pad(seconds)}`;
};
const shown = (value) => value === null ? '–' : value.toLocaleString('en', { maximumFractionDigits: 2 });
const end = Math.max(times.at(-1) ?? 1, 1);
for (const notice of document.querySelectorAll('.scripted')) notice.hidden = times.length === 0;
for (const svg of times.length ? document.querySelectorAll('svg[data-plot]') : []) {
  const { unit, series } = plots[svg.dataset.plot], area = svg.querySelector('.area'), frame = svg.parentElement;
  const cursor = make('div', 'cursor', frame), tip = make('div', 'tip', frame);
  tip.setAttribute('role', 'status');
  let at = null;
  const hide = () => { at = null; cursor.style.display = tip.style.display = 'none'; };
  const show = (place) => {
    at = Math.min(Math.max(place, 0), times.length - 1);
    tip.replaceChildren(document.createTextNode(`${clock(times[at])}${unit && ` (${unit})`}`));
    const table = make('table', '', tip);
    for (const { name, values } of series) {
      const row = table.insertRow();
      make('th', '', row).textContent = name;
      make('td', '', row).textContent = typeof values[at] === 'string' ? values[at] : shown(values[at]);
    }
    cursor.style.display = tip.style.display = 'block';
    const box = area.getBoundingClientRect(), outside = frame.getBoundingClientRect();
    const x = box.left - outside.left + box.width * times[at] / end;
    Object.assign(cursor.style, { left: `${x}px`, top: `${box.top - outside.top}px`, height: `${box.height}px` });
    const left = x > outside.width / 2 ? x - tip.offsetWidth - 12 : x + 12;
    tip.style.left = `${Math.max(0, Math.min(left, outside.width - tip.offsetWidth))}px`;
  };
  const nearest = (time) => {
    const next = times.findIndex((one) => one >= time);
    if (next < 0) return times.length - 1;
    return next > 0 && time - times[next - 1] < times[next] - time ? next - 1 : next;
  };
  const follow = (event) => {
    const box = area.getBoundingClientRect();
    show(nearest((event.clientX - box.left) / box.width * end));
  };
  area.addEventListener('pointermove', follow);
  area.addEventListener('pointerdown', follow);
  area.addEventListener('pointerleave', hide);
  svg.tabIndex = 0;
  svg.addEventListener('blur', hide);
  svg.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: (at ?? times.length) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: times.length - 1 };
    if (event.key === 'Escape') hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(steps[event.key]);
  });
}
