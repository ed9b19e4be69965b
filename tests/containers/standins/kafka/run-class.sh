#!/bin/bash
# One program under the names of Kafka's: which one it is says its own name.
set -euo pipefail
heap=-Xmx256m
case $(basename "$0") in
  kafka-storage.sh) class=kafka.tools.StorageTool ;;
  kafka-server-start.sh) class=kafka.Kafka heap='-Xmx1G -Xms1G' ;;
  kafka-topics.sh) class=org.apache.kafka.tools.TopicCommand ;;
  kafka-consumer-groups.sh) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
  kafka-get-offsets.sh) class=org.apache.kafka.tools.GetOffsetShell ;;
  *) echo "not one of Kafka's programs: $0" >&2; exit 1 ;;
esac
mkdir -p "${LOG_DIR:-/opt/kafka/logs}" # as Kafka's own scripts do: a read-only root has to name another
# shellcheck disable=SC2086 # options are several words
exec java ${KAFKA_HEAP_OPTS:-$heap} ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseSerialGC -XX:TieredStopAtLevel=1} ${KAFKA_OPTS:-} \
  ${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=/opt/kafka/bin/log4j2.xml} -cp '/opt/kafka/libs/*' "$class" "$@"
