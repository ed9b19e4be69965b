"""Apache Kafka from Maven's packages, kept in the cache folder."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from vegamite_common.testing.services.process import ServiceError, cache_directory

KAFKA_VERSION = "4.1.0"
_LOG4J_VERSION = "2.24.3"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>vegamite</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
      <version>{KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{_LOG4J_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId>
      <version>{_LOG4J_VERSION}</version></dependency>
  </dependencies>
</project>
"""

_LOGGING = """<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


def kafka_jars() -> Path:
    """Return the folder of Kafka's jars and `log4j2.xml`, fetched the first time; ServiceError without Maven or Java."""
    target = cache_directory() / f"kafka-{KAFKA_VERSION}"
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        raise ServiceError(
            "Kafka's packages need Java and Maven (Debian: openjdk-17-jre-headless, maven), or set VEGAMITE_TEST_KAFKA"
        )
    unfinished = Path(tempfile.mkdtemp(prefix=".kafka-", dir=target.parent))
    try:
        (unfinished / "pom.xml").write_text(_POM)
        (unfinished / "log4j2.xml").write_text(_LOGGING)
        options = [
            "--batch-mode",
            "--quiet",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={unfinished}",
        ]
        fetched = subprocess.run(
            [maven, "dependency:copy-dependencies", *options],
            cwd=unfinished,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if fetched.returncode != 0:
            raise ServiceError(
                f"Maven couldn't fetch Kafka:\n{fetched.stdout[-2000:]}{fetched.stderr[-2000:]}"
            )
        if not target.is_dir():  # another run may have been quicker
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target
