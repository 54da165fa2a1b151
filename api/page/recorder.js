// The microphone: a recording made in the browser, with a level meter while it is made.

const KINDS = [
  ["audio/webm;codecs=opus", "webm"],
  ["audio/ogg;codecs=opus", "ogg"],
  ["audio/mp4", "m4a"],
];
const FLOOR_DB = -60;

const REFUSALS = {
  NotAllowedError: "The browser was not allowed to use the microphone. Allow it in the address bar, and try again.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone is used by another program.",
};

export function whyNot() {
  if (!navigator.mediaDevices?.getUserMedia) return "A browser gives its microphone only over https, or to this machine itself.";
  if (!window.MediaRecorder) return "This browser cannot record.";
  return "";
}

// `onLevel` gets 0 to 1, and the seconds so far, at every frame. Raises an Error with plain words.
export async function record(onLevel) {
  const stream = await navigator.mediaDevices
    .getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } })
    .catch((error) => {
      throw new Error(REFUSALS[error.name] ?? "The microphone cannot be used.");
    });
  const [mimeType, ending] = KINDS.find(([kind]) => MediaRecorder.isTypeSupported(kind)) ?? ["", "webm"];
  const recorder = new MediaRecorder(stream, mimeType ? { mimeType } : {});
  const chunks = [];
  recorder.ondataavailable = (event) => event.data.size && chunks.push(event.data);
  const stopMeter = meter(stream, onLevel);
  const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
  // A microphone that is pulled out ends the recording; what was said by then is kept.
  recorder.start(1000);

  async function end() {
    if (recorder.state !== "inactive") recorder.stop();
    await stopped;
    stopMeter();
    stream.getTracks().forEach((track) => track.stop());
    const type = recorder.mimeType.split(";")[0] || "audio/webm";
    return new File(chunks, `Recording ${stamp(new Date())}.${ending}`, { type });
  }

  return { end, stopped };
}

function meter(stream, onLevel) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 2048 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const began = performance.now();
  let frame = 0;
  const look = () => {
    analyser.getFloatTimeDomainData(samples);
    onLevel(level(samples), (performance.now() - began) / 1000);
    frame = requestAnimationFrame(look);
  };
  look();
  return () => {
    cancelAnimationFrame(frame);
    context.close();
  };
}

// As ears have it: decibels, from the floor to the loudest.
export function level(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  const decibels = 10 * Math.log10(power + 1e-12);
  return Math.min(1, Math.max(0, 1 - decibels / FLOOR_DB));
}

function stamp(now) {
  const two = (number) => String(number).padStart(2, "0");
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())} ${two(now.getHours())}.${two(now.getMinutes())}.${two(now.getSeconds())}`;
}
