import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Map;

/** The services of tests/servers/grpc_parts.py, whose messages are plain bytes. */
final class Names {
    static final String ORDERS = "orders.v1.Orders";
    static final String ADMIN = "orders.v1.Admin";
    /** The methods by their name; those of both services that do the same stand together. */
    static final Map<String, MethodType> METHODS = Map.of(
            "Get", MethodType.UNARY, "Delete", MethodType.UNARY, "Wait", MethodType.UNARY,
            "Sum", MethodType.CLIENT_STREAMING, "Purge", MethodType.CLIENT_STREAMING,
            "List", MethodType.SERVER_STREAMING, "Dump", MethodType.SERVER_STREAMING,
            "Chat", MethodType.BIDI_STREAMING, "Shell", MethodType.BIDI_STREAMING);

    private Names() {}

    static MethodDescriptor<byte[], byte[]> method(String service, String name) {
        return MethodDescriptor.newBuilder(BYTES, BYTES)
                .setType(METHODS.get(name))
                .setFullMethodName(service + "/" + name)
                .build();
    }

    private static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
            return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try (stream) {
                return stream.readAllBytes();
            } catch (IOException failed) {
                throw new UncheckedIOException(failed);
            }
        }
    };

    /** A string of JSON; all text of these tests is printable. */
    static String json(String text) {
        return text == null ? "null" : "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }
}
