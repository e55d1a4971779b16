# docker build -t ip-lap .
# docker run --rm --gpus all -v "$PWD:/data" ip-lap --video /data/talk.mp4 --audio /data/speech.wav --output /data/dubbed.mp4
# Without an NVIDIA GPU, leave out --gpus all. Other commands: docker run --rm --entrypoint python ip-lap -m evaluation
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1
WORKDIR /opt/ip-lap

# The list is complete; --no-deps keeps out dependencies of MediaPipe that this project does not need.
COPY requirements.txt ./
RUN pip install --no-cache-dir --no-deps --requirement requirements.txt

COPY . .

ENTRYPOINT ["python", "/opt/ip-lap/inference.py"]
