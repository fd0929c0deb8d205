// What is on a page, told to the page around it. Read by browser.py.
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgba(text) {  // any CSS color, color-mix() included
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
}
const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
function luminance(color) {  // WCAG 2.2, relative luminance
  const [r, g, b] = color.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + .05) / (low + .05);
}
function behind(element, box) {  // the color below a text: of its ancestors, of shapes in a drawing
  const drawing = element.closest('svg'), layers = [];
  if (drawing) for (const shape of drawing.querySelectorAll('rect, path, circle')) {
    const at = shape.getBoundingClientRect(), style = getComputedStyle(shape);
    const inside = at.left <= box.left && at.right >= box.right && at.top <= box.top && at.bottom >= box.bottom;
    const before = element.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING;
    if (inside && before && style.fill !== 'none') layers.unshift(rgba(style.fill));
  }
  for (let up = drawing || element; up; up = up.parentElement) layers.push(rgba(getComputedStyle(up).backgroundColor));
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
}
function texts() {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement, range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect(), style = getComputedStyle(element);
    if (!node.data.trim() || !box.width || element.closest('script, style')) continue;
    const color = rgba(element.closest('svg') ? style.fill : style.color);
    if (!color[3]) continue;  // not there for the eye
    let opacity = color[3];
    for (let up = element; up; up = up.parentElement) opacity *= getComputedStyle(up).opacity;
    const below = behind(element, box), drawing = element.closest('svg');
    const size = parseFloat(style.fontSize) * (drawing ? drawing.getScreenCTM().a : 1);
    found.push({text: node.data.trim(), contrast: contrast(over([...color.slice(0, 3), opacity], below), below),
                pixels: size, large: size >= 24 || (size >= 18.66 && style.fontWeight >= 700)});
  }
  return found;
}
function scrolls(element) {
  for (let up = element.parentElement; up; up = up.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX)) return true;
  return false;
}
function overflowing() {  // elements beyond the page's right edge, but in a part that scrolls
  const width = document.documentElement.clientWidth;
  return [...document.body.querySelectorAll('*')].filter(
    e => !e.closest('script, style') && e.getBoundingClientRect().right > width + .5 && !scrolls(e)
  ).map(e => e.tagName + ' ' + e.getAttribute('class') + ' ' + e.textContent.slice(0, 40));
}
function clipped() {  // texts of drawings that leave the drawing, or the box whose top they are in
  const holds = (box, x, y) => box.left - 1 <= x && x <= box.right + 1 && box.top - 1 <= y && y <= box.bottom + 1;
  return [...document.querySelectorAll('svg text')].filter(text => {
    const at = text.getBoundingClientRect(), drawing = text.closest('svg');
    const boxes = [...drawing.querySelectorAll('rect[rx]')].map(r => r.getBoundingClientRect());
    const mine = boxes.filter(box => holds(box, at.left, at.top));
    return ![drawing.getBoundingClientRect(), ...mine].every(
      box => holds(box, at.left, at.top) && holds(box, at.right, at.bottom));
  }).map(text => text.textContent);
}
function pictures() {  // of each drawing and strip: its size, and the shapes in it that have one
  const kinds = 'svg, .lane, .histogram, .limit, .bar';
  return [...document.querySelectorAll(kinds)].map(e => {
    const box = e.getBoundingClientRect();
    const shapes = [...e.querySelectorAll(e.tagName === 'svg' ? 'rect, path, circle, polyline' : 'i, b')];
    const drawn = shapes.filter(s => { const at = s.getBoundingClientRect(); return at.width + at.height > 0; });
    const below = behind(e.parentElement, box);
    const seen = drawn.filter(s => {
      const style = getComputedStyle(s), paint = e.tagName === 'svg' ? [style.fill, style.stroke] : [style.backgroundColor];
      return paint.some(c => c !== 'none' && contrast(over(rgba(c), below), below) > 1.05);
    });
    return {kind: e.getAttribute('class'), width: box.width, height: box.height, right: box.right,
            shapes: shapes.length, drawn: drawn.length, seen: seen.length};
  });
}
addEventListener('load', () => {
  for (const part of document.querySelectorAll('details')) part.open = true;
  parent.postMessage(JSON.stringify({width: innerWidth, scroll: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight, texts: texts(), overflowing: overflowing(), clipped: clipped(), pictures: pictures(),
    paper: rgba(getComputedStyle(document.body).backgroundColor)}), '*');
});
