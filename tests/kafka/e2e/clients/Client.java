import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

/** Kafka's own client; see shared.py. */
public class Client {
    static final int TIMEOUT = 60, LARGE = 20 << 20;
    static final String PLAIN =
            "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"%s\" password=\"%s\";";
    static String bootstrap, name;

    interface Action {
        void run() throws Exception;
    }

    public static void main(String[] words) throws Exception {
        bootstrap = words[0];
        name = words[1];
        switch (words[2]) {
            case "kinds" -> say(kinds());
            case "transactions" -> say(transactions());
            case "refused" -> say(refused());
            case "mixed" -> say(mixed());
            case "admin" -> say(admin());
            case "large" -> say(large());
            case "share" -> say(share());
            default -> watch(words[2].equals("watch") ? "classic" : "consumer");
        }
    }

    /** Every kind of acks and compression, and what two kinds of groups read of it. */
    static Map<String, Object> kinds() {
        Map<String, Map<String, Object>> kinds = new LinkedHashMap<>();
        for (String acks : List.of("0", "1", "all"))
            kinds.put("acks=" + acks, Map.of("acks", acks, "enable.idempotence", false));
        kinds.put("idempotent", Map.of("enable.idempotence", true));
        for (String kind : List.of("gzip", "snappy", "lz4", "zstd")) kinds.put(kind, Map.of("compression.type", kind));
        Map<String, Object> sent = new TreeMap<>(), found = new TreeMap<>();
        String topic = "open-" + name;
        kinds.forEach((kind, keys) -> {
            try (var producer = producer(keys)) {
                sent.put(kind, send(producer, topic, kind + " ".repeat(2000)));
            }
        });
        for (String kind : List.of("classic", "consumer"))
            found.put(kind, read(Map.of("group.id", topic + kind, "group.protocol", kind), List.of(topic), kinds.size()));
        found.put("sent", sent);
        return found;
    }

    /** Read and write in transactions, of which one is aborted. */
    static Map<String, Object> transactions() throws Exception {
        String there = "open-" + name + "-in", here = "open-" + name + "-out", group = "open-" + name + "-txn";
        try (var plain = producer(Map.of())) {
            send(plain, there, "input");
        }
        long committed;
        try (var source = consumer(Map.of("group.id", group, "enable.auto.commit", false));
                var producer = producer(Map.of("transactional.id", "open-" + name))) {
            source.subscribe(List.of(there));
            ConsumerRecords<byte[], byte[]> some = source.poll(Duration.ofSeconds(TIMEOUT));
            var partition = new TopicPartition(there, 0);
            long offset = some.records(partition).get(0).offset() + 1;
            producer.initTransactions();
            for (String value : List.of("one", "aborted", "two")) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(here, value.getBytes())).get();
                if (value.equals("one"))
                    producer.sendOffsetsToTransaction(
                            Map.of(partition, new OffsetAndMetadata(offset)), source.groupMetadata());
                if (value.equals("aborted")) producer.abortTransaction();
                else producer.commitTransaction();
            }
            committed = source.committed(Set.of(partition)).get(partition).offset();
        }
        Map<String, Object> keys = Map.of("group.id", here, "isolation.level", "read_committed");
        return Map.of("committed", committed, "out", read(keys, List.of(here), 2));
    }

    /** What clients are told of names that they may not use. */
    static Map<String, Object> refused() {
        Map<String, Object> found = new TreeMap<>();
        try (var producer = producer(Map.of());
                var transactional = producer(Map.of("transactional.id", "secret-" + name))) {
            found.put("produce", send(producer, "secret-" + name, "x"));
            found.put("produce to what may be read", send(producer, "read-" + name, "x"));
            found.put("produce on", send(producer, "open-" + name, "x"));
            found.put("transaction", attempt(transactional::initTransactions));
        }
        for (String kind : List.of("classic", "consumer")) {
            Map<String, Object> keys = Map.of("group.protocol", kind, "group.id", "open-" + name + "-refused" + kind);
            found.put("consume " + kind, read(keys, List.of("secret-" + name), 1));
            keys = Map.of("group.protocol", kind, "group.id", "secret-" + name + kind);
            found.put("group " + kind, read(keys, List.of("open-" + name), 1));
        }
        return found;
    }

    /** Two topics in one request, of which one is refused. */
    static Map<String, Object> mixed() {
        List<String> topics = List.of("open-" + name + "-mixed", "read-" + name);
        Map<String, Object> told = new TreeMap<>();
        try (var producer = producer(Map.of("linger.ms", 50))) {
            topics.forEach(producer::partitionsFor);
            Map<String, Future<RecordMetadata>> sent = new TreeMap<>();
            for (String topic : topics) sent.put(topic, producer.send(new ProducerRecord<>(topic, "mixed".getBytes())));
            sent.forEach((topic, future) -> told.put(topic, attempt(future::get)));
        }
        return Map.of("produce", told, "consume", read(Map.of(), List.of(topics.get(0), "write-" + name), 2));
    }

    /** Topics listed, made, described and deleted, or not. */
    static Map<String, Object> admin() throws Exception {
        Map<String, Object> found = new TreeMap<>();
        List<String> names = List.of("open-" + name + "-made", "secret-" + name + "-made");
        try (Admin admin = Admin.create(keys(Map.of()))) {
            found.put("list", new ArrayList<>(new TreeSet<>(admin.listTopics().names().get())));
            var made = admin.createTopics(names.stream().map(one -> new NewTopic(one, 1, (short) 1)).toList());
            found.put("create", told(made.values()));
            var some = Stream.of("open-", "secret-").map(one -> new ConfigResource(ConfigResource.Type.TOPIC, one + name));
            Map<String, Object> described = new TreeMap<>();
            admin.describeConfigs(some.toList()).values()
                    .forEach((key, future) -> described.put(key.name(), attempt(future::get)));
            found.put("describe", described);
            found.put("topics", told(admin.describeTopics(List.of("open-" + name, "secret-" + name)).topicNameValues()));
            found.put("delete", told(admin.deleteTopics(names).topicNameValues()));
        }
        return found;
    }

    /** 20 MB in one batch, there and back. */
    static List<Object> large() throws Exception {
        byte[] value = new byte[LARGE];
        new Random(6).nextBytes(value);
        String topic = "open-" + name + "-large", sent;
        try (var producer = producer(Map.of("max.request.size", 2 * LARGE, "buffer.memory", 4L * LARGE))) {
            sent = attempt(() -> producer.send(new ProducerRecord<>(topic, value)).get());
        }
        Map<String, Object> keys = Map.of("max.partition.fetch.bytes", 2 * LARGE, "group.id", topic);
        try (var consumer = consumer(keys)) {
            consumer.subscribe(List.of(topic));
            var some = consumer.poll(Duration.ofSeconds(TIMEOUT));
            return List.of(sent, !some.isEmpty() && Arrays.equals(some.iterator().next().value(), value));
        }
    }

    /** What a share group reads, of a topic that is allowed and of one that is not. */
    static Map<String, Object> share() {
        Map<String, Object> found = new TreeMap<>();
        for (String topic : List.of("open-", "secret-")) found.put(topic, shared(topic + name));
        return found;
    }

    static String shared(String topic) {
        Map<String, Object> keys = keys(Map.of("group.id", "open-" + name + "-share"));
        keys.remove("auto.offset.reset");
        var consumer = new KafkaShareConsumer<>(keys, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        try (var producer = producer(Map.of())) {
            consumer.subscribe(List.of(topic));
            for (int turns = 0; turns < 2 * TIMEOUT; turns++) {
                send(producer, topic, "shared");  // a new group begins at what comes
                for (var one : consumer.poll(Duration.ofMillis(500))) return new String(one.value()).strip();
            }
            return "nothing";
        } catch (KafkaException error) {
            return error.getClass().getSimpleName();
        } finally {
            consumer.close(Duration.ofSeconds(1));  // where it could not join, it would try to leave for 30 seconds
        }
    }

    /** Say what comes, for ever. */
    static void watch(String protocol) throws Exception {
        String topic = "open-" + name + "-watch";
        Map<String, Object> keys = Map.of("group.id", topic, "metadata.max.age.ms", 1000, "group.protocol", protocol);
        try (var consumer = consumer(keys)) {
            consumer.subscribe(List.of(topic));
            while (true) {
                try {
                    for (var one : consumer.poll(Duration.ofMillis(500))) say(new String(one.value()));
                } catch (KafkaException error) {
                    say(error.getClass().getSimpleName());
                    Thread.sleep(100);
                }
            }
        }
    }

    // -- words ----------------------------------------------------------------------------------------------------

    static Map<String, Object> keys(Map<String, Object> more) {
        Map<String, Object> keys = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest"));
        String login = System.getenv("KAFKA_LOGIN");
        if (login != null) {
            keys.put("security.protocol", "SASL_PLAINTEXT");
            keys.put("sasl.mechanism", "PLAIN");
            keys.put("sasl.jaas.config", PLAIN.formatted(login, login));
        }
        keys.putAll(more);
        return keys;
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> keys = keys(more);
        keys.remove("auto.offset.reset");
        return new KafkaProducer<>(keys, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> more) {
        return new KafkaConsumer<>(keys(more), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static String send(KafkaProducer<byte[], byte[]> producer, String topic, String value) {
        return attempt(() -> producer.send(new ProducerRecord<>(topic, value.getBytes())).get());
    }

    /** So many values or errors, none twice, sorted. Without a group: of the first partitions. */
    static List<String> read(Map<String, Object> more, List<String> topics, int count) {
        TreeSet<String> found = new TreeSet<>();
        try (var consumer = consumer(more)) {
            if (more.containsKey("group.id")) consumer.subscribe(topics);
            else {
                consumer.assign(topics.stream().map(topic -> new TopicPartition(topic, 0)).toList());
                for (String topic : topics) consumer.seek(new TopicPartition(topic, 0), 0);
            }
            long end = System.nanoTime() + TIMEOUT * 1_000_000_000L;
            while (found.size() < count && System.nanoTime() < end) {
                try {
                    for (var one : consumer.poll(Duration.ofMillis(500))) found.add(new String(one.value()).strip());
                } catch (KafkaException error) {
                    found.add(error.getClass().getSimpleName());
                }
            }
        }
        return List.copyOf(found);
    }

    static Map<String, Object> told(Map<String, ? extends KafkaFuture<?>> futures) {
        Map<String, Object> found = new TreeMap<>();
        futures.forEach((key, future) -> found.put(key, attempt(future::get)));
        return found;
    }

    static String attempt(Action action) {
        try {
            action.run();
            return "ok";
        } catch (ExecutionException error) {
            return error.getCause().getClass().getSimpleName();
        } catch (Exception error) {
            return error.getClass().getSimpleName();
        }
    }

    static void say(Object value) {
        System.out.println(json(value));
    }

    static String json(Object value) {
        if (value instanceof Map<?, ?> map)
            return map.entrySet().stream()
                    .map(one -> json(one.getKey()) + ": " + json(one.getValue()))
                    .collect(Collectors.joining(", ", "{", "}"));
        if (value instanceof List<?> list)
            return list.stream().map(Client::json).collect(Collectors.joining(", ", "[", "]"));
        return value instanceof String text ? '"' + text + '"' : String.valueOf(value);
    }
}
