/*
 * Parses the files it is given to the phase CONVERSION, which needs none of the classes that they name.
 *
 * Says of each file that is wrong what the compiler says.
 */

import org.codehaus.groovy.control.CompilationFailedException
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.Phases

def report = new PrintStream(System.out, true, 'UTF-8')
args.each { path ->
    def unit = new CompilationUnit(new CompilerConfiguration(sourceEncoding: 'UTF-8'))
    unit.addSource(new File(path))
    try {
        unit.compile(Phases.CONVERSION)
        report.println "ok\t${path}"
    } catch (CompilationFailedException error) {
        report.println "failed\t${path}\t${error.message.inspect()}"
    }
}
