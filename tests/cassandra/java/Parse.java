import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import com.google.common.collect.Multimap;
import org.antlr.runtime.ANTLRStringStream;
import org.antlr.runtime.BaseRecognizer;
import org.antlr.runtime.RecognitionException;
import org.antlr.runtime.Token;
import org.apache.cassandra.auth.DataResource;
import org.apache.cassandra.auth.FunctionResource;
import org.apache.cassandra.config.DatabaseDescriptor;
import org.apache.cassandra.cql3.CQLFragmentParser;
import org.apache.cassandra.cql3.CQLStatement;
import org.apache.cassandra.cql3.CqlLexer;
import org.apache.cassandra.cql3.CqlParser;
import org.apache.cassandra.cql3.ErrorListener;
import org.apache.cassandra.cql3.QualifiedName;
import org.apache.cassandra.cql3.RoleName;
import org.apache.cassandra.cql3.UTName;
import org.apache.cassandra.cql3.functions.FunctionName;
import org.apache.cassandra.cql3.functions.NativeFunctions;

/**
 * Cassandra's own lexer and parser, asked line by line: "lex TEXT", "parse TEXT", the text in base64 of its UTF-8, or
 * "functions " for the names of its own functions.
 * The answer is one line of words with a tab between them: "error" and what is wrong, or "ok" and for each token its
 * name and its text, or the class of the statement and what it holds, as "field=value". Values are in base64.
 */
public final class Parse {
    private static String word(String text) {
        return Base64.getEncoder().encodeToString(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String lex(String text) throws Exception {
        CqlLexer lexer = new CqlLexer(new ANTLRStringStream(text));
        List<String> errors = new ArrayList<>();
        lexer.addErrorListener(new ErrorListener() {
            @Override
            public void syntaxError(BaseRecognizer recognizer, String[] names, RecognitionException wrong) {
                errors.add(String.valueOf(wrong));
            }

            @Override
            public void syntaxError(BaseRecognizer recognizer, String message) {
                errors.add(message);
            }
        });
        StringBuilder made = new StringBuilder("ok");
        while (true) {
            Token token = lexer.nextToken();
            if (token.getType() == Token.EOF)
                break;
            if (token.getChannel() == Token.DEFAULT_CHANNEL)
                made.append('\t').append(CqlParser.tokenNames[token.getType()]).append('=').append(word(token.getText()));
        }
        return errors.isEmpty() ? made.toString() : "error\t" + word(errors.get(0));
    }

    private static void describe(Object found, String prefix, StringBuilder made) throws Exception {
        for (Class<?> type = found.getClass(); type != Object.class; type = type.getSuperclass())
            for (Field field : type.getDeclaredFields()) {
                if (Modifier.isStatic(field.getModifiers()))
                    continue;
                field.setAccessible(true);
                add(prefix + field.getName(), field.get(found), made);
            }
    }

    private static void add(String name, Object value, StringBuilder made) throws Exception {
        if (value instanceof QualifiedName) {
            QualifiedName qualified = (QualifiedName) value;
            add(name + ".keyspace", qualified.getKeyspace(), made);
            add(name + ".name", qualified.getName(), made);
        } else if (value instanceof FunctionName) {
            add(name + ".keyspace", ((FunctionName) value).keyspace, made);
            add(name + ".name", ((FunctionName) value).name, made);
        } else if (value instanceof UTName) {
            add(name + ".keyspace", ((UTName) value).getKeyspace(), made);
            add(name + ".name", ((UTName) value).getStringTypeName(), made);
        } else if (value instanceof RoleName) {
            add(name + ".role", ((RoleName) value).getName(), made);
        } else if (value instanceof String || value instanceof Boolean || value instanceof Enum) {
            made.append('\t').append(name).append('=').append(word(value.toString()));
        } else if (value instanceof DataResource) {
            DataResource resource = (DataResource) value;
            if (!resource.isRootLevel())
                add(name + ".keyspace", String.valueOf(resource.getKeyspace()), made);
            if (resource.isTableLevel())
                add(name + ".table", resource.getTable(), made);
        } else if (value instanceof FunctionResource) {
            FunctionResource resource = (FunctionResource) value;
            if (!resource.equals(FunctionResource.root()))
                add(name + ".keyspace", String.valueOf(resource.getKeyspace()), made);
        } else if (value instanceof List) {
            for (int index = 0; index < ((List<?>) value).size(); index++) {
                Object one = ((List<?>) value).get(index);
                if (one instanceof CQLStatement.Raw) {
                    String inner = name + "." + index + ".";
                    made.append('\t').append(inner).append("class=").append(word(kind(one)));
                    describe(one, inner, made);
                    calls(one, inner, Collections.newSetFromMap(new IdentityHashMap<>()), made);
                } else if (name.endsWith("conditions"))
                    made.append('\t').append(name).append('=').append(word("some"));
            }
        }
    }

    /** All functions that a statement calls, wherever in it. */
    private static void calls(Object found, String prefix, Set<Object> seen, StringBuilder made) throws Exception {
        if (found == null || !seen.add(found))
            return;
        if (found instanceof FunctionName) {
            made.append('\t').append(prefix).append("call.keyspace=").append(word(String.valueOf(((FunctionName) found).keyspace)));
            made.append('\t').append(prefix).append("call.name=").append(word(((FunctionName) found).name));
        } else if (found instanceof Object[]) {
            for (Object one : (Object[]) found)
                calls(one, prefix, seen, made);
        } else if (found instanceof Map) {
            for (Map.Entry<?, ?> one : ((Map<?, ?>) found).entrySet()) {
                calls(one.getKey(), prefix, seen, made);
                calls(one.getValue(), prefix, seen, made);
            }
        } else if (found instanceof Iterable) {
            for (Object one : (Iterable<?>) found)
                calls(one, prefix, seen, made);
        } else if (found.getClass().getName().startsWith("org.apache.cassandra.") && !(found instanceof Enum)) {
            for (Class<?> type = found.getClass(); type != Object.class; type = type.getSuperclass())
                for (Field field : type.getDeclaredFields())
                    if (!Modifier.isStatic(field.getModifiers()) && !field.getType().isPrimitive()) {
                        field.setAccessible(true);
                        calls(field.get(found), prefix, seen, made);
                    }
        }
    }

    private static String kind(Object statement) {
        String name = statement.getClass().getName();
        return name.substring(name.lastIndexOf('.') + 1);
    }

    private static String parse(String text) throws Exception {
        CQLStatement.Raw found = CQLFragmentParser.parseAnyUnhandled(CqlParser::query, text);
        StringBuilder made = new StringBuilder("ok\tclass=").append(word(kind(found)));
        describe(found, "", made);
        calls(found, "", Collections.newSetFromMap(new IdentityHashMap<>()), made);
        return made.toString();
    }

    /** The names of Cassandra's own functions. */
    private static String functions() throws Exception {
        StringBuilder made = new StringBuilder("ok");
        for (String member : new String[] {"functions", "factories"}) {
            Field field = NativeFunctions.class.getDeclaredField(member);
            field.setAccessible(true);
            for (Object name : ((Multimap<?, ?>) field.get(NativeFunctions.instance)).keySet())
                made.append("\tname=").append(word(name instanceof FunctionName ? ((FunctionName) name).name : name.toString()));
        }
        return made.toString();
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true);
        System.setOut(System.err);
        DatabaseDescriptor.clientInitialization();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        out.println("ready");
        for (String line; (line = lines.readLine()) != null;) {
            int blank = line.indexOf(' ');
            String text = new String(Base64.getDecoder().decode(line.substring(blank + 1)), StandardCharsets.UTF_8);
            String answer;
            try {
                answer = line.startsWith("lex") ? lex(text) : line.startsWith("parse") ? parse(text) : functions();
            } catch (Throwable wrong) {
                answer = "error\t" + word(String.valueOf(wrong));
            }
            out.println(answer);
        }
    }
}
