# A service for models exported to ONNX, without torch (not built where this project is developed).
#
#   docker build -t seqrec .
#   docker run -p 8000:8000 -v ./model-onnx:/models/main:ro -v events:/events -e SEQREC_TOKEN seqrec
#
# For models of torch replace the second pip line by: pip install ".[serve]" with an index of CPU wheels.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-compile --no-deps . \
 && pip install --no-cache-dir --no-compile --constraint constraints.txt \
    numpy polars pyarrow pydantic PyYAML typer rich safetensors fsspec s3fs \
    fastapi "uvicorn[standard]" prometheus-client onnxruntime \
 && useradd --create-home seqrec && install -d -o seqrec /events
USER seqrec
EXPOSE 8000
VOLUME /events
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz')"]
CMD ["seqrec", "serve", "/models/main", "--host", "0.0.0.0", "--events", "/events", "--set", "drain_seconds=5"]
