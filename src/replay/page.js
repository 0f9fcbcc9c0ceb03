const pictures = JSON.parse(document.getElementById("pictures").textContent);
const image = document.getElementById("picture");
const slider = document.getElementById("slider");
const caption = document.getElementById("caption");
let current = 0;
function show(position) {
  current = Math.min(Math.max(position, 0), pictures.length - 1);
  const { file, index } = pictures[current];
  image.src = file;
  image.alt = "bird's-eye view of frame " + index;
  slider.value = current;
  caption.textContent = "frame " + index + "  (" + (current + 1) + " / " + pictures.length + ")";
  for (const row of document.querySelectorAll("tr.shown")) row.classList.remove("shown");
  const row = document.getElementById("f" + index);
  if (row) row.classList.add("shown");
}
document.getElementById("previous").addEventListener("click", () => show(current - 1));
document.getElementById("next").addEventListener("click", () => show(current + 1));
slider.addEventListener("input", () => show(Number(slider.value)));
document.addEventListener("keydown", (event) => {
  if (event.target === slider) return;
  if (event.key === "ArrowLeft") show(current - 1);
  if (event.key === "ArrowRight") show(current + 1);
});
for (const row of document.querySelectorAll("tr.pick")) {
  row.addEventListener("click", () => show(pictures.findIndex((picture) => picture.index === Number(row.id.slice(1)))));
}
show(0);
