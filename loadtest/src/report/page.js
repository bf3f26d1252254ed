// Shows the values under the pointer.
for (const svg of document.querySelectorAll('svg[data-plot]')) {
  const plot = JSON.parse(svg.dataset.plot), figure = svg.parentElement;
  const tip = figure.appendChild(Object.assign(document.createElement('div'), { className: 'tip' }));
  const last = plot.times[plot.times.length - 1] || 1;
  svg.addEventListener('mouseleave', () => { tip.style.display = 'none'; });
  svg.addEventListener('mousemove', (event) => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const time = (x - plot.left) / (plot.right - plot.left) * last;
    const found = plot.times.findIndex((at) => at >= time);
    if (time < 0 || found < 0) { tip.style.display = 'none'; return; }
    const shown = (value) => value === null ? '–' : value.toLocaleString(undefined, { maximumFractionDigits: 2 });
    tip.textContent = `${plot.times[found].toFixed(0)} s\n` +
      plot.series.map((one) => `${one.name}: ${shown(one.values[found])} ${plot.unit}`).join('\n');
    tip.style.display = 'block';
    const left = event.clientX - figure.getBoundingClientRect().left;
    tip.style.left = `${left > box.width / 2 ? left - tip.offsetWidth - 12 : left + 12}px`;
  });
}
