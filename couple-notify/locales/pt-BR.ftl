# Form of address: você.

code-subject = Seu código para { $app }
sign-up-intro = Digite este código para confirmar seu endereço:
sign-in-intro = Seu código para entrar:
email-intro = Digite este código para confirmar seu novo endereço:
or-open-link = Ou abra este link:
confirm-button = Confirmar endereço
sign-in-button = Entrar
code-and-link-lifetime = O código vale por { $code_time }, e o link, por { $link_time }.
code-advice = Se não foi você quem pediu, ignore este e-mail e nada acontecerá. Não compartilhe o código com ninguém.

already-subject = Você já tem uma conta em { $app }
already-text = Alguém, talvez você, tentou se cadastrar em { $app } com este endereço, que já tem uma conta.
already-advice = Entre como sempre. Se você esqueceu a senha, peça uma nova por lá.

password-subject = Nova senha para { $app }
password-intro = Abra este link para definir uma nova senha:
password-button = Definir senha
password-advice = Se não foi você quem pediu, ignore este e-mail: sua senha continua a mesma.
link-lifetime = O link vale por { $time }.

email-subject = Confirme seu novo endereço para { $app }
email-asked-subject = Pedido de mudança do seu endereço em { $app }
email-asked-text = Alguém conectado à sua conta pediu para usar outro endereço. Se foi você, não precisa fazer nada.
email-asked-intro = Se não foi você, abra este link para manter este endereço:
email-asked-button = Manter este endereço
email-asked-advice = Depois, defina uma nova senha e desconecte seus outros dispositivos.
email-changed-subject = Seu endereço em { $app } foi alterado
email-changed-text = Sua conta agora tem outro endereço, e este não é mais usado.
email-changed-advice = Se não foi você, responda a este e-mail imediatamente.
email-confirmed-text = Este endereço agora pertence à sua conta em { $app }. De agora em diante, entre com ele.

password-changed-subject = Sua senha em { $app } foi alterada
password-changed-text = Uma nova senha foi definida, e todos os outros dispositivos foram desconectados.
password-changed-advice = Se não foi você, peça uma nova senha imediatamente.

device-subject = Novo acesso à sua conta em { $app }
device-text = Um novo dispositivo entrou na sua conta: { $device }, em { $time }.
device-unnamed-text = Um novo dispositivo entrou na sua conta em { $time }.
device-advice = Se não foi você, defina uma nova senha imediatamente: isso desconecta todos os outros dispositivos.

deletion-subject = Sua conta em { $app } será excluída
deletion-text = Sua conta e tudo o que você escreveu serão excluídos em { $date }.
deletion-advice = Se mudar de ideia, entre na conta antes dessa data.
deleted-subject = Sua conta em { $app } foi excluída
deleted-text = Sua conta e tudo o que você escreveu foram excluídos, como você pediu. Você não receberá mais e-mails de { $app }.

invitation-subject = Um convite em { $app }
invitation-text = { $name } quer se conectar com você em { $app }.
invitation-unnamed-text = Alguém que conhece seu endereço quer se conectar com você em { $app }. Este e-mail não diz quem é: você verá o nome ao abrir o convite.
invitation-intro = O código do convite:
invitation-button = Abrir convite
invitation-expiry = O código e o link valem até { $time }.
invitation-advice = Se você não espera um convite, ignore este e-mail e nada acontecerá.
accepted-subject = Seu convite em { $app } foi aceito
accepted-text = { $name } aceitou seu convite. Agora vocês estão juntos em { $app }.
accepted-advice = Se você não conhece essa pessoa, desfaça a conexão no aplicativo.

left-subject = Sua conexão em { $app } terminou
left-text = A pessoa com quem você estava em { $app } encerrou a conexão.
left-advice = Você não precisa fazer nada: sua conta continua.

digest-subject = Mensagens não lidas em { $app }
digest-text =
    { $form ->
        [one] Você tem { $count } mensagem não lida em { $app }.
       *[other] Você tem { $count } mensagens não lidas em { $app }.
    }
digest-from-text =
    { $form ->
        [one] Você tem { $count } mensagem não lida de { $name } em { $app }.
       *[other] Você tem { $count } mensagens não lidas de { $name } em { $app }.
    }
digest-advice = Abra o aplicativo para ler e responder.
digest-reason = Você recebe este e-mail porque pediu e-mails sobre mensagens não lidas.
digest-stop = Parar de receber estes e-mails

stop-title = E-mails sobre mensagens não lidas
stop-question = Você quer parar de receber estes e-mails?
stop-done = Você não receberá mais e-mails sobre mensagens não lidas. Você pode ativá-los novamente no aplicativo.
stop-failed = Este link não funciona. Desative os e-mails no aplicativo.

news-subject = Novidades de { $app }
news-text = Abra o aplicativo.

# Always after "vale por".
duration-seconds =
    { $form ->
        [one] { $count } segundo
       *[other] { $count } segundos
    }
duration-minutes =
    { $form ->
        [one] { $count } minuto
       *[other] { $count } minutos
    }
duration-hours =
    { $form ->
        [one] { $count } hora
       *[other] { $count } horas
    }
duration-days =
    { $form ->
        [one] { $count } dia
       *[other] { $count } dias
    }

date =
    { $day } de { $month ->
        [1] janeiro
        [2] fevereiro
        [3] março
        [4] abril
        [5] maio
        [6] junho
        [7] julho
        [8] agosto
        [9] setembro
        [10] outubro
        [11] novembro
       *[12] dezembro
    } de { $year }
date-time = { $date }, { $time } UTC
