package vegamite.peers;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Kafka Streams: one tumbling window of a minute for each market, over a topic with a record a trade.
 *
 * <p>Arguments: bootstrap, topic, trades, state directory. It runs until it is ended from outside, and tells on standard
 * output what progress.py describes.
 */
public final class MinuteCandles {
  private static final int STEPS = 100;
  private static final int CANDLE_BYTES = 5 * Double.BYTES + Long.BYTES;

  private final long trades;
  private long taken;
  private long next;

  private MinuteCandles(long trades) {
    this.trades = trades;
  }

  /** Start it. */
  public static void main(String[] arguments) {
    var candles = new MinuteCandles(Long.parseLong(arguments[2]));
    var streams =
        new KafkaStreams(
            candles.topology(arguments[1]).build(), properties(arguments[0], arguments[3]));
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  /** What isn't named here is as Kafka Streams has it: at least once, a commit every 30 s, 10 MB of cache. */
  private static Properties properties(String bootstrap, String state) {
    var properties = new Properties();
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, state.substring(state.lastIndexOf('/') + 1));
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, state);
    properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    properties.put(
        StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    return properties;
  }

  private StreamsBuilder topology(String topic) {
    var builder = new StreamsBuilder();
    builder.stream(topic, Consumed.with(Serdes.String(), tradeSerde()))
        .groupByKey(Grouped.with(Serdes.String(), tradeSerde()))
        .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
        .aggregate(
            Candle::new,
            (market, trade, candle) -> {
              took();
              return candle.with(trade);
            },
            Materialized.<String, Candle, WindowStore<Bytes, byte[]>>with(
                Serdes.String(), candleSerde()))
        .toStream()
        .foreach(
            (window, candle) -> candle.tell(window.key(), window.window().start()));
    return builder;
  }

  private void took() {
    taken++;
    if (taken >= next) {
      say("{\"at\": %.6f, \"trades\": %d}", System.nanoTime() / 1e9, taken);
      long step = Math.max(1, trades / STEPS);
      next = Math.min(taken - taken % step + step, trades);
    }
  }

  private static void say(String format, Object... values) {
    System.out.println(String.format(Locale.ROOT, format, values));
  }

  /** A trade as the topic has it; other fields are skipped. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Trade {
    public double price;
    public double amount;
  }

  /** A window's sums, as doubles. */
  static final class Candle {
    double open;
    double high;
    double low;
    double close;
    double volume;
    long count;

    Candle with(Trade trade) {
      if (count == 0) {
        open = high = low = trade.price;
      }
      high = Math.max(high, trade.price);
      low = Math.min(low, trade.price);
      close = trade.price;
      volume += trade.amount;
      count++;
      return this;
    }

    void tell(String market, long start) {
      say(
          "{\"candle\": [\"%s\", %d, %s, %s, %s, %s, %s, %d]}",
          market, start, open, high, low, close, volume, count);
    }
  }

  private static Serde<Trade> tradeSerde() {
    ObjectReader reader = new ObjectMapper().readerFor(Trade.class);
    Deserializer<Trade> deserializer =
        (topic, data) -> {
          try {
            return reader.readValue(data);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        };
    Serializer<Trade> serializer =
        (topic, trade) -> {
          throw new UnsupportedOperationException("a trade is never written");
        };
    return Serdes.serdeFrom(serializer, deserializer);
  }

  private static Serde<Candle> candleSerde() {
    Serializer<Candle> serializer =
        (topic, candle) ->
            ByteBuffer.allocate(CANDLE_BYTES)
                .putDouble(candle.open)
                .putDouble(candle.high)
                .putDouble(candle.low)
                .putDouble(candle.close)
                .putDouble(candle.volume)
                .putLong(candle.count)
                .array();
    Deserializer<Candle> deserializer =
        (topic, data) -> {
          if (data == null) {
            return null;
          }
          var buffer = ByteBuffer.wrap(data);
          var candle = new Candle();
          candle.open = buffer.getDouble();
          candle.high = buffer.getDouble();
          candle.low = buffer.getDouble();
          candle.close = buffer.getDouble();
          candle.volume = buffer.getDouble();
          candle.count = buffer.getLong();
          return candle;
        };
    return Serdes.serdeFrom(serializer, deserializer);
  }
}
