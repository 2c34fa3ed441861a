// Audio of a file or the microphone, as mono samples at the rate of the model. The browser decodes and resamples.

export async function decode(blob, rate, name) {
  const context = new OfflineAudioContext(1, 1, rate); // decodeAudioData resamples to the rate of its context
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error(`${name}: is not audio that this browser can decode; choose a wav, mp3 or flac file.`);
  }
  if (audio.length < rate / 10) throw new Error(`${name}: is shorter than a tenth of a second; choose a longer one.`);
  const samples = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((value, i) => (samples[i] += value / audio.numberOfChannels));
  }
  return samples;
}

export class Recorder {
  running = false;

  async start() {
    if (!navigator.mediaDevices) throw new Error("The microphone needs https or localhost; open this page under one of them.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      throw new Error(`The browser gives no microphone (${error.message}); allow it in the settings of this page.`);
    }
    this.recorder = new MediaRecorder(stream, { audioBitsPerSecond: 128000 });
    this.parts = [];
    this.recorder.ondataavailable = ({ data }) => this.parts.push(data);
    this.recorder.start();
    this.running = true;
  }

  async stop() {
    this.running = false;
    const { recorder } = this;
    await new Promise((resolve) => {
      recorder.onstop = resolve;
      recorder.stop();
    });
    recorder.stream.getTracks().forEach((track) => track.stop());
    return new Blob(this.parts, { type: recorder.mimeType });
  }
}
