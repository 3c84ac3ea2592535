public final class Oracle { private Oracle() {} public static void main(String[] a) {} }
